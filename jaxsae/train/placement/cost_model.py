"""What an update costs in each placement: arithmetic, memory, communication.

Everything follows from shapes, the mesh and the chip's figures, so a plan that
is made elsewhere predicts the same. Products count as if dense, at the chip's
peak; what a device sends goes as round a ring, along one axis of its torus.
So the times are too short where products are small and too long where a mesh
axis has links in more than one direction; they are there to be compared.

Shapes: N tokens, D_in width of the site read, D of the site written, F latents.
"""

import dataclasses

from jax.sharding import AbstractMesh, Mesh

from jaxsae import mesh as meshes
from jaxsae.chips import GIB, Chip
from jaxsae.train.placement.layout import resting_axes
from jaxsae.train.placement.placements import ALL, BY_LATENT, Axes, Placement

FLOAT = 4  # bytes; autoencoders are float32


@dataclasses.dataclass(frozen=True)
class Work:
  """The updates of stacks that differ in their site alone.

  Attributes:
    sites: how many stacks.
    members: autoencoders of each.
    d_in: D_in.
    d: D.
    width: F.
    tokens: N, of one update.
    updates: of one bucket.
    row: bytes that are read of the language model for each token.
    moments: Adam's arrays for each weight.
  """

  sites: int
  members: int
  d_in: int
  d: int
  width: int
  tokens: int
  updates: int
  row: int
  moments: int = 1


@dataclasses.dataclass(frozen=True)
class Price:
  """Of one update in one placement, on one device.

  Attributes:
    placement: which.
    compute: seconds of products.
    memory: seconds of reading and writing memory beside them.
    communication: seconds of waiting for other devices.
    flops: operations.
    sent: bytes that go to other devices, the moves between buckets spread
      over a bucket's updates.
    moved: bytes of these moves alone, for a bucket.
    held: bytes of memory.
    refused: why it can not be; empty where it can.
  """

  placement: Placement
  compute: float
  memory: float
  communication: float
  flops: float
  sent: float
  moved: float
  held: float
  refused: str = ""

  @property
  def seconds(self) -> float:
    return self.compute + self.memory + self.communication


def prices(work: Work, mesh: Mesh | AbstractMesh, chip: Chip) -> list[Price]:
  """Of all placements, the cheapest first, and last those that can not be.

  What costs the same stays in order, the one that makes no copies first.
  """
  found = [price(work, place, mesh, chip) for place in reversed(ALL.values())]
  return sorted(found, key=lambda one: (bool(one.refused), one.seconds))


def price(
  work: Work, place: Placement, mesh: Mesh | AbstractMesh, chip: Chip
) -> Price:
  """Of one placement."""
  share = _Share(work, place, mesh)
  moved = share.moved
  sent = share.rows + share.sums + moved / work.updates
  return Price(
    placement=place,
    compute=share.flops / chip.flops,
    memory=share.traffic / chip.hbm_bandwidth,
    communication=sent / chip.link_bandwidth,
    flops=share.flops,
    sent=sent,
    moved=moved,
    held=share.held,
    refused=share.misfit or _too_big(share.held, chip),
  )


def _too_big(held: float, chip: Chip) -> str:
  if held <= chip.hbm_bytes:
    return ""
  return f"needs {held / GIB:.1f} GiB of a device's {chip.hbm_bytes / GIB:.0f}"


class _Share:
  """What one device has to do."""

  def __init__(self, work: Work, place: Placement, mesh):
    self.work, self.place, self.mesh = work, place, mesh
    everyone = work.sites * work.members
    self.members = -(-everyone // self._over(place.saes))  # with copies
    self.latents = work.width / self._over(place.latents)
    self.tokens = work.tokens / self._over(place.rows)
    self.sites = self._sites(everyone)

  def _over(self, axes: Axes) -> int:
    return meshes.axes_size(self.mesh, axes)

  def _others(self, axes: Axes) -> float:
    """Of what devices along the axes have, the share that is not here."""
    return 1 - 1 / self._over(axes)

  def _sites(self, everyone: int) -> int:
    """How many it reads, or the device that reads the most does."""
    dealt = [
      range(i * self.members, (i + 1) * self.members)
      for i in range(self._over(self.place.saes))
    ]
    site = lambda member: member % everyone // self.work.members
    return max(len({site(member) for member in some}) for some in dealt)

  @property
  def misfit(self) -> str:
    over = self._over(self.place.latents)
    if self.work.width % over:
      return f"{over} devices do not divide {self.work.width} latents"
    return ""

  @property
  def weights(self) -> float:
    work = self.work
    return self.members * self.latents * (work.d_in + work.d)

  @property
  def flops(self) -> float:
    """Two a weight and token for each product: two products of the encoder,
    as activations need no gradient, and three of the decoder."""
    each = 4 * self.work.d_in + 6 * self.work.d
    return self.members * self.tokens * self.latents * each

  @property
  def traffic(self) -> float:
    """Bytes read and written.

    Weights are read three times and written once, gradients three times in
    all, moments twice; latents go six times between products and what is
    elementwise, and reconstructions four.
    """
    passes = 7 + 2 * self.work.moments
    of_latents = 6 * self.members * self.tokens * self.latents
    of_rows = 4 * self.members * self.tokens * self.work.d
    return FLOAT * (passes * self.weights + of_latents + of_rows)

  @property
  def rows(self) -> float:
    """Bytes of tokens that come here from other devices."""
    if self.place.rows:
      return 0
    read = self.sites * self.work.tokens * self.work.row
    return self._others(("data",)) * read

  @property
  def sums(self) -> float:
    """Of reconstructions over latents, and of gradients over tokens.

    A sum takes two rounds: one to add up, one to tell.
    """
    made = FLOAT * self.members * self.tokens * self.work.d
    return 2 * (
      self._others(self.place.latents) * made
      + self._others(self.place.rows) * FLOAT * self.weights
    )

  @property
  def moved(self) -> float:
    """Bytes from where stacks rest to their place, and back."""
    if self.place == BY_LATENT:
      return 0
    if self.place.rows:  # the way back is to forget
      return self._others(self.place.rows) * self._state
    if self.place.latents:  # and there devices swap places
      swap = min(self.mesh.shape.values()) > 1
      return 2 * (self._others(("model",)) + swap) * self._state
    return 2 * self._others(self.place.saes) * self._state

  @property
  def _state(self) -> float:
    return FLOAT * (1 + self.work.moments) * self.weights

  @property
  def held(self) -> float:
    """State at rest and at work, gradients, and latents with their own.

    Where it is trained as it rests, there is one state. The language model
    and other stacks come on top.
    """
    work = self.work
    everyone = work.sites * work.members * work.width * (work.d_in + work.d)
    spread = self._over(resting_axes(work.width, self.mesh))
    rest = FLOAT * (1 + work.moments) * everyone / spread
    at_work = 0 if self.place == BY_LATENT else self._state
    latents = 3 * FLOAT * self.members * self.tokens * self.latents
    return rest + at_work + FLOAT * self.weights + latents
