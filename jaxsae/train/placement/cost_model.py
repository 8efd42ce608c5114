"""A cost model: seconds and bytes that one update takes in each placement.

Everything follows from shapes, the mesh and the chip's figures, so a plan made
on another machine predicts the same. Products are counted as dense and at the
chip's peak. What a device sends is counted as a ring along one axis of its
torus. So the times are too short where products are small, and too long where
a mesh axis has links in more than one direction. They are for comparison.

Shapes: N tokens, D_in width of the site read, D of the site written, F latents.
"""

import dataclasses

from jax.sharding import AbstractMesh, Mesh

from jaxsae import mesh as meshes
from jaxsae.chips import GIB, Chip
from jaxsae.sae.flops import update_flops_per_token
from jaxsae.train.placement import placements
from jaxsae.train.placement.layout import resting_axes
from jaxsae.train.placement.placements import BY_LATENT, Axes, Placement

FLOAT = 4  # bytes; autoencoders are float32


@dataclasses.dataclass(frozen=True)
class Work:
  """The updates of stacks that differ only in their site.

  Attributes:
    sites: number of stacks.
    members: autoencoders in each stack.
    d_in: D_in.
    d: D.
    width: F.
    tokens: N, the tokens of one update.
    updates: updates per bucket.
    token_bytes: bytes of activations that an autoencoder takes per token.
    moments: arrays that Adam keeps for each weight.
    skip: the autoencoders are transcoders with an affine skip.
    summed: numbers of each token that are summed over all latents; None: D, a
      single reconstruction.
    interleaved: latents are interleaved where they are sharded.
    spread: in the bucket, the numbers of a token are spread over `model`.
  """

  sites: int
  members: int
  d_in: int
  d: int
  width: int
  tokens: int
  updates: int
  token_bytes: int
  moments: int = 1
  skip: bool = False
  summed: int | None = None
  interleaved: bool = False
  spread: bool = True


@dataclasses.dataclass(frozen=True)
class UpdateTime:
  """Predicted seconds and bytes of one update in one placement, per device.

  Attributes:
    placement: the placement.
    compute: seconds of products.
    memory: seconds of other memory traffic.
    communication: seconds of waiting for other devices.
    flops: FLOPs.
    sent: bytes sent to other devices, including one update's part of `moved`.
    moved: bytes per bucket that move stacks to their placement and back.
    held: bytes of memory needed.
    kept: bytes of `held` that stay taken while other stacks train.
    error: why the placement is impossible; empty if it is possible.
  """

  placement: Placement
  compute: float
  memory: float
  communication: float
  flops: float
  sent: float
  moved: float
  held: float
  kept: float
  error: str = ""

  @property
  def seconds(self) -> float:
    """Seconds in total, as if nothing overlapped."""
    return self.compute + self.memory + self.communication


def update_times(
  work: Work, mesh: Mesh | AbstractMesh, chip: Chip, resident: float = 0.0
) -> list[UpdateTime]:
  """Predicts one update in every placement, fastest first, impossible last.

  Of equally fast placements, one that makes no copies comes first.

  Args:
    work: the updates.
    mesh: the mesh of devices.
    chip: the figures of a device.
    resident: bytes of its memory that are taken by everything else.
  """
  found = [
    update_time(work, placement, mesh, chip, resident)
    for placement in reversed(placements.on(mesh))
  ]
  return sorted(found, key=lambda one: (bool(one.error), one.seconds))


def update_time(
  work: Work,
  placement: Placement,
  mesh: Mesh | AbstractMesh,
  chip: Chip,
  resident: float = 0.0,
) -> UpdateTime:
  """Predicts one update in one placement; for arguments see `update_times`."""
  share = _Share(work, placement, mesh)
  moved = share.moved
  sent = share.activations + share.sums + moved / work.updates
  return UpdateTime(
    placement=placement,
    compute=share.flops / chip.flops,
    memory=share.traffic / chip.hbm_bandwidth,
    communication=sent / chip.link_bandwidth,
    flops=share.flops,
    sent=sent,
    moved=moved,
    held=share.held,
    kept=share.kept,
    error=share.error or _memory_error(share.held, chip, resident),
  )


def resting_bytes(work: Work, mesh: Mesh | AbstractMesh) -> float:
  """Returns the bytes of a device's share of the state between buckets."""
  all_weights = work.sites * work.members * work.width * (work.d_in + work.d)
  shards = meshes.axes_size(mesh, resting_axes(work.width, mesh))
  return FLOAT * (1 + work.moments) * all_weights / shards


def _memory_error(held: float, chip: Chip, resident: float) -> str:
  if held + resident <= chip.hbm_bytes:
    return ""
  besides = f", where {resident / GIB:.1f} are taken" if resident else ""
  return (
    f"needs {held / GIB:.1f} GiB of a device's"
    f" {chip.hbm_bytes / GIB:.0f}{besides}"
  )


class _Share:
  """One device's share of the work."""

  def __init__(
    self, work: Work, placement: Placement, mesh: Mesh | AbstractMesh
  ):
    self.work, self.placement = work, placement
    self.mesh = placement.mesh(mesh)
    self.data = meshes.batch_axes(self.mesh)
    all_members = work.sites * work.members
    self.members = -(-all_members // self._size(placement.saes))  # with copies
    self.latents = work.width / self._size(placement.latents)
    self.tokens = work.tokens / self._size(placement.tokens)
    self.sites = self._sites(placement.saes)

  def _size(self, axes: Axes) -> int:
    """Number of shards along these mesh axes."""
    return meshes.axes_size(self.mesh, axes)

  def _elsewhere(self, axes: Axes) -> float:
    """Fraction of an array sharded over these axes that other devices hold."""
    return 1 - 1 / self._size(axes)

  def _sites(self, axes: Axes) -> int:
    """Number of sites that the shard of these axes with most of them reads."""
    count, every = self._size(axes), self.work.sites * self.work.members
    each = self.members * self._size(self.placement.saes) // count
    shards = [range(i * each, (i + 1) * each) for i in range(count)]
    site = lambda member: member % every // self.work.members
    return max(len({site(member) for member in shard}) for shard in shards)

  @property
  def error(self) -> str:
    """Why the latents cannot be sharded; empty if they can."""
    size = self._size(self.placement.latents)
    if self.work.width % size:
      return f"{size} devices do not divide {self.work.width} latents"
    return ""

  @property
  def weights(self) -> float:
    work = self.work
    return self.members * self.latents * (work.d_in + work.d)

  @property
  def flops(self) -> float:
    """FLOPs: `update_flops_per_token`; a skip is not sharded over latents."""
    work = self.work
    per_token = update_flops_per_token(
      work.d_in, work.d, self.latents, work.skip
    )
    return self.members * self.tokens * per_token

  @property
  def traffic(self) -> float:
    """Bytes read from memory and written to it.

    Weights are read three times and written once. Gradients are read or
    written three times, moments twice, latents six times between products and
    elementwise operations, and reconstructions four times.
    """
    passes = 7 + 2 * self.work.moments
    of_latents = 6 * self.members * self.tokens * self.latents
    of_tokens = 4 * self.members * self.tokens * self._summed
    return FLOAT * (passes * self.weights + of_latents + of_tokens)

  @property
  def activations(self) -> float:
    """Bytes of activations that come from other devices.

    In the bucket, tokens are sharded over `data` and, if `spread`, D over
    `model`.
    """
    read = self.work.tokens * self.work.token_bytes
    spread: Axes = ("model",) if self.work.spread else ()
    if self.placement.tokens:
      some = read / self._size(self.placement.tokens)
      return self.sites * self._elsewhere(spread) * some
    if self.work.sites == 1 or not self.placement.saes:
      return self.sites * self._elsewhere((*self.data, *spread)) * read
    near = self._sites(("model",)) * read / self._size(self.data)
    swapped = self._elsewhere(spread) * near
    return swapped + self.sites * self._elsewhere(self.data) * read

  @property
  def sums(self) -> float:
    """Bytes sent to sum reconstructions over latents and gradients over tokens.

    An all-reduce sends everything twice: once to add up, once to share the sum.
    """
    made = FLOAT * self.members * self.tokens * self._summed
    return 2 * (
      self._elsewhere(self.placement.latents) * made
      + self._elsewhere(self.placement.tokens) * FLOAT * self.weights
    )

  @property
  def _summed(self) -> int:
    return self.work.d if self.work.summed is None else self.work.summed

  @property
  def moved(self) -> float:
    """Bytes per bucket that move stacks to their placement and back."""
    dealt = self._dealt if self.work.interleaved else 0
    if self.placement == BY_LATENT:
      return dealt
    if self.placement.tokens:  # on the way back, copies are dropped
      return dealt + self._elsewhere(self.placement.tokens) * self._state
    if self.placement.latents:  # devices also swap shards, unless latents are
      both = min(self._size(("model",)), self._size(self.placement.latents)) > 1
      swap = both and (not dealt or self.placement.part > 1)
      away = self._elsewhere(self.placement.saes)
      return dealt + 2 * (away + swap) * self._state
    return 2 * self._elsewhere(self.placement.saes) * self._state

  @property
  def _dealt(self) -> float:
    """Bytes per bucket that interleave latents and put them back in order."""
    axes = self.placement.latents
    moves = sum(self._elsewhere((axis,)) for axis in axes)
    return (
      2 * moves * (self._state if self.placement.part > 1 else self._resting)
    )

  @property
  def _state(self) -> float:
    return FLOAT * (1 + self.work.moments) * self.weights

  @property
  def held(self) -> float:
    """Bytes of state at rest and in training, gradients, latents and theirs.

    The language model, the bucket and other stacks come on top.
    """
    latents = 3 * FLOAT * self.members * self.tokens * self.latents
    return self.kept + FLOAT * self.weights + latents

  @property
  def kept(self) -> float:
    """Bytes of state at rest and in training.

    With `BY_LATENT` both are one unless latents are interleaved.
    """
    stays = self.placement == BY_LATENT and not self.work.interleaved
    return self._resting + (0 if stays else self._state)

  @property
  def _resting(self) -> float:
    return resting_bytes(self.work, self.mesh)
