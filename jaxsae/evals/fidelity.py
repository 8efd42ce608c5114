"""The language model's loss when a reconstruction replaces an activation.

Shapes: B batch, T time, D site width.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae import mesh as meshes
from jaxsae import pod
from jaxsae.errors import UserError
from jaxsae.evals.keeper import LOSSES, Keeper
from jaxsae.evals.steps import ChunkedSae, in_steps
from jaxsae.lm import Lm, Place, Site, Splice, Taps, loss_of_stream
from jaxsae.lm.moving import (
  NOWHERE,
  MovingPatch,
  MovingSplice,
  Shape,
  stream_patched,
  stream_spliced,
)
from jaxsae.lm.sites import names
from jaxsae.sae import Sae
from jaxsae.token_batch import TokenBatch

CLEAN = "clean"  # the pass without an edit
_CLEARLY = 2.0  # standard errors by which a mean is clearly above zero


@dataclasses.dataclass(frozen=True)
class Fidelity:
  """Mean cross-entropies of the same next tokens, in nats.

  Attributes:
    tokens: number of next tokens predicted.
    clean_loss: loss of the unchanged language model.
    spliced_loss: loss with the reconstruction in place of the activation.
    zero_loss: loss with zeros in place of the activation.
    mean_loss: loss with the site's mean activation in place of it.
    zero_error: standard error of zero_loss - clean_loss, from its spread over
      the rows of text; infinite if there are too few.
    mean_error: that of mean_loss - clean_loss.
  """

  tokens: int
  clean_loss: float
  spliced_loss: float
  zero_loss: float
  mean_loss: float
  zero_error: float = 0.0
  mean_error: float = 0.0

  @property
  def delta_loss(self) -> float:
    """The loss that the splice adds, in nats."""
    return self.spliced_loss - self.clean_loss

  @property
  def loss_recovered_zero(self) -> float:
    """(CE_zero - CE_spliced) / (CE_zero - CE_clean): 1 is lossless."""
    return self._recovered(self.zero_loss, self.zero_error)

  @property
  def loss_recovered_mean(self) -> float:
    """(CE_mean - CE_spliced) / (CE_mean - CE_clean): 1 is lossless."""
    return self._recovered(self.mean_loss, self.mean_error)

  def _recovered(self, ablated: float, error: float) -> float:
    """Returns the recovered share, or NaN if the ablation loses nothing.

    A loss that is not clearly above zero has no shares: its sign is chance.
    """
    lost = ablated - self.clean_loss
    if lost <= _CLEARLY * error:
      return math.nan
    return (ablated - self.spliced_loss) / lost


def measure_fidelity(
  lm: Lm,
  saes: Mapping[str, tuple[Place, Sae]],
  means: Mapping[Site, np.ndarray],
  batches: Iterable[TokenBatch],
  keeper: Keeper | None = None,
  report: Callable[[int], None] = lambda done: None,
) -> dict[str, Fidelity]:
  """Measures the loss of the model clean, ablated and spliced.

  Only text is edited; the activations of special tokens stay as they are. The
  model is read once clean, twice for each set of sites that is written, and
  once for each autoencoder: see `count_passes`.

  Args:
    lm: the language model.
    saes: name → site and autoencoder of raw activations, or the taps and a
      transcoder or crosscoder. Those of one shape share one compiled function,
      whatever their sites.
    means: mean activation [D] of each site that is written, for mean ablation.
    batches: the text, [B, T].
    keeper: keeps the sums so far, and may have some to go on with.
    report: called with the number of passes over the batches that are done.

  Raises:
    UserError: the batches hold no token to predict.
  """
  keeper = keeper or Keeper()
  placed = {name: (Taps.of(at), sae) for name, (at, sae) in saes.items()}
  steps = list(in_steps(lm, batches))
  # Of each row that is done, Σ cross-entropy and tokens that were predicted.
  sums = dict(keeper.recall(LOSSES) or {})
  for number, (name, loss) in enumerate(_passes(lm, placed, means).items(), 1):
    sums.setdefault(name, np.zeros((2, 0)))
    for index in range(_steps_done(sums[name], steps), len(steps)):
      found = pod.to_host(meshes.wait_for(loss(steps[index])))
      sums[name] = np.concatenate([sums[name], np.stack(found)], axis=1)
      done = index + 1 == len(steps)
      keeper.offer(LOSSES, lambda: sums, done)
    report(number)
  tokens = int(sums[CLEAN][1].sum())
  if not tokens:
    raise UserError(
      "The held-out batches hold no token to predict; hold out a larger share"
      " of the documents, or measure the loss on more batches."
    )
  return {
    name: _fidelity(sums, name, taps) for name, (taps, _) in placed.items()
  }


def _steps_done(rows: np.ndarray, steps: Sequence[TokenBatch]) -> int:
  """Returns how many steps the sums [2, rows] are of."""
  return rows.shape[1] // len(steps[0].tokens) if steps else 0


def count_passes(places: Iterable[Place]) -> int:
  """Returns how often autoencoders at some places read the loss batches."""
  every = [Taps.of(place) for place in places]
  return 1 + 2 * len({taps.writes for taps in every}) + len(every)


Loss = Callable[[TokenBatch], tuple[jax.Array, jax.Array]]


def _passes(lm: Lm, placed, means) -> dict[str, Loss]:
  """Returns the loss that each pass measures, by the name of the pass."""
  written = sorted({taps.writes for taps, _ in placed.values()})
  zeros = {
    site: np.zeros_like(means[site]) for some in written for site in some
  }
  passes: dict[str, Loss] = {CLEAN: _Patched(lm, written, (), {})}
  for some in written:
    passes[_ablated("mean", some)] = _Patched(lm, written, some, means)
    passes[_ablated("zero", some)] = _Patched(lm, written, some, zeros)
  shapes = shared_shapes(placed)
  for name, (taps, sae) in placed.items():
    splice = Splice(ChunkedSae(sae, lm.mesh))
    edit = MovingSplice.at(taps, splice, shapes[name])
    passes[f"spliced {name}"] = functools.partial(spliced_loss, lm, edit)
  return passes


def shared_shapes(placed: Mapping[str, tuple[Taps, Sae]]) -> dict[str, Shape]:
  """Returns each autoencoder's shape, one for all whose arrays are alike."""
  joined: dict[Any, Shape] = {}
  keys = {}
  for name, (taps, sae) in placed.items():
    shape, form = Shape.of(taps), jax.tree.structure(sae)
    arrays = tuple((x.shape, x.dtype) for x in jax.tree.leaves(sae))
    keys[name] = (form, arrays, shape.counts)
    joined[keys[name]] = joined.get(keys[name], shape) | shape
  return {name: joined[key] for name, key in keys.items()}


class _Patched:
  """The loss with values in place of some sites' activations, on all text.

  One compiled function serves every set of sites.

  Args:
    lm: the language model.
    every: all sets of sites that are patched in any pass.
    sites: the set of sites that is patched in this one; may be empty.
    values: site → its value [D].
  """

  def __init__(
    self,
    lm: Lm,
    every: Sequence[Sequence[Site]],
    sites: Sequence[Site],
    values: Mapping[Site, np.ndarray],
  ):
    at, numbers = {}, {}
    for where in sorted({site.where for some in every for site in some}):
      of_kind = lambda some, where=where: [s for s in some if s.where == where]
      most = max(len(of_kind(some)) for some in every)
      d = Site(where, 0).width(lm.config)
      at[where] = np.full(most, NOWHERE, np.int32)
      numbers[where] = np.zeros((most, d), np.float32)
      for index, site in enumerate(of_kind(sites)):
        at[where][index] = site.number
        numbers[where][index] = values[site]
    self._lm, self._patch = lm, MovingPatch(at, numbers)

  def __call__(self, step: TokenBatch) -> tuple[jax.Array, jax.Array]:
    return patched_loss(self._lm, self._patch, step)


@jax.jit
def patched_loss(
  lm: Lm, edit: MovingPatch, step: TokenBatch
) -> tuple[jax.Array, jax.Array]:
  """Returns each row's Σ cross-entropy in nats with patches, and tokens."""
  text = lm.text_mask(step.tokens, step.segments)
  stream = stream_patched(lm, step, edit.replace(mask=text))
  return _sums(lm, stream, step)


@jax.jit
def spliced_loss(
  lm: Lm, edit: MovingSplice, step: TokenBatch
) -> tuple[jax.Array, jax.Array]:
  """Returns each row's Σ cross-entropy in nats with a splice, and tokens."""
  text = lm.text_mask(step.tokens, step.segments)
  splice = edit.splice.replace(mask=text)
  return _sums(lm, stream_spliced(lm, step, edit.replace(splice=splice)), step)


def _sums(
  lm: Lm, stream: jax.Array, step: TokenBatch
) -> tuple[jax.Array, jax.Array]:
  losses, mask = loss_of_stream(lm, stream, step.tokens, step.segments)
  return jnp.sum(losses, axis=1), jnp.sum(mask, axis=1, dtype=jnp.int32)


def _ablated(how: str, written: Sequence[Site]) -> str:
  """Returns the name of the pass in which some sites are ablated."""
  return f"{how} {names(written)}"


def _fidelity(
  sums: Mapping[str, np.ndarray], name: str, taps: Taps
) -> Fidelity:
  zero, mean = (_ablated(how, taps.writes) for how in ("zero", "mean"))
  passes = (CLEAN, f"spliced {name}", zero, mean)
  losses = [float(sums[of][0].sum() / sums[of][1].sum()) for of in passes]
  errors = [
    standard_error(sums[of][0] - sums[CLEAN][0], sums[of][1])
    for of in (zero, mean)
  ]
  return Fidelity(int(sums[CLEAN][1].sum()), *losses, *errors)


def standard_error(sums: np.ndarray, counts: np.ndarray) -> float:
  """Returns the standard error of Σ sums / Σ counts over independent rows.

  Tokens of one row are not independent of one another; rows nearly are.

  Args:
    sums: the sum of each row.
    counts: its number of tokens; rows with none are left out.

  Returns:
    The standard error of a ratio of means; infinite for fewer than two rows.
  """
  sums, counts = sums[counts > 0], counts[counts > 0]
  rows = len(counts)
  if rows < 2:
    return math.inf
  rest = sums - sums.sum() / counts.sum() * counts
  spread = math.sqrt(rows / (rows - 1) * float(rest @ rest))
  return spread / float(counts.sum())
