"""The language model's loss when a reconstruction replaces an activation.

Shapes: B batch, T time, D site width.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import numpy as np

from jaxsae import mesh as meshes
from jaxsae import pod
from jaxsae.errors import UserError
from jaxsae.evals.intervals import Ratio, standard_error
from jaxsae.evals.keeper import LOSSES, Figures, Keeper
from jaxsae.evals.passes import CLEAN, ablated, passes_of, spliced
from jaxsae.evals.steps import Step, in_steps
from jaxsae.evals.tally import Tally
from jaxsae.lm import Lm, Place, Site, Taps, loss_and_kl
from jaxsae.sae import Sae
from jaxsae.token_batch import TokenBatch

_CLEARLY = 2.0  # standard errors by which a mean is clearly above zero


@dataclasses.dataclass(frozen=True)
class ByGroup:
  """The loss that a splice adds on groups of tokens.

  Attributes:
    labels: what each group is, such as "4-7" for positions.
    tokens: the number of next tokens predicted in each.
    delta_loss: the loss that the splice adds in each, in nats.
  """

  labels: Sequence[str]
  tokens: Sequence[int]
  delta_loss: Sequence[float]


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
      documents; infinite if there are too few.
    mean_error: that of mean_loss - clean_loss.
    kl: mean KL(clean ‖ spliced) of the next token's distributions, in nats.
    zero_kl: the same with zeros in place of the activation.
    mean_kl: the same with the mean activation.
    by_position: delta loss by the position of the token in its segment.
    by_kind: delta loss by the kind of document; empty where none is known.
    ratios: numerators and denominators by document, of delta_loss, kl and the
      shares recovered.
  """

  tokens: int
  clean_loss: float
  spliced_loss: float
  zero_loss: float
  mean_loss: float
  zero_error: float = 0.0
  mean_error: float = 0.0
  kl: float = math.nan
  zero_kl: float = math.nan
  mean_kl: float = math.nan
  by_position: ByGroup = ByGroup((), (), ())
  by_kind: ByGroup = ByGroup((), (), ())
  ratios: Mapping[str, Ratio] = dataclasses.field(default_factory=dict)

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

  @property
  def kl_recovered_zero(self) -> float:
    """(KL_zero - KL_spliced) / KL_zero: 1 is lossless."""
    return (self.zero_kl - self.kl) / self.zero_kl if self.zero_kl else math.nan

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
  kind: Callable[[int], str] | None = None,
) -> dict[str, Fidelity]:
  """Measures the loss of the model clean, ablated and spliced.

  Only text is edited; the activations of special tokens stay as they are. The
  model reads each step once clean, twice for each set of sites that is written,
  and once for each autoencoder.

  Args:
    lm: the language model.
    saes: name → site and autoencoder of raw activations, or the taps and a
      transcoder or crosscoder. Those of one shape share one compiled function,
      whatever their sites.
    means: mean activation [D] of each site that is written, for mean ablation.
    batches: the text, [B, T].
    keeper: keeps the sums so far, and may have some to go on with.
    report: called with the number of passes over the batches that are done, of
      `count_passes`.
    kind: document → its kind, such as a suffix.

  Raises:
    UserError: the batches hold no token to predict.
  """
  keeper = keeper or Keeper()
  placed = {name: (Taps.of(at), sae) for name, (at, sae) in saes.items()}
  steps, sums = list(in_steps(lm, batches)), _Sums()
  sums.recall(keeper.recall(LOSSES))
  passes, forwards = passes_of(lm, placed, means), 0
  for number, step in enumerate(steps):
    clean = None
    for name, stream in passes.items():
      forwards += 1
      if not sums.has(name, number):
        clean = passes[CLEAN](step.text) if clean is None else clean
        edited = clean if name == CLEAN else stream(step.text)
        sums.add(name, step, _loss_of(lm, edited, clean, step))
        keeper.offer(LOSSES, sums.figures, done=number + 1 == len(steps))
      if forwards % len(steps) == 0:
        report(forwards // len(steps))
  _check_tokens(sums)
  return {
    name: _fidelity(sums, name, taps, kind)
    for name, (taps, _) in placed.items()
  }


class _Sums:
  """Sums over the steps so far, by the name of the pass.

  Attributes:
    by_document: Σ over the next tokens of each document of 1, of the losses and
      of the divergences of each pass.
    by_position: the same over positions, see `_position_group`.
  """

  def __init__(self) -> None:
    self.by_document, self.by_position = Tally(), Tally()
    self._steps: dict[str, int] = {}  # the steps that each pass has done

  def has(self, name: str, step: int) -> bool:
    """Returns whether a pass has done a step, counted from 0."""
    return self._steps.get(name, 0) > step

  def add(self, name: str, step: Step, found) -> None:
    """Adds the losses, divergences and mask [B, T-1] of one pass and step."""
    loss, kl, mask = found
    values = {f"loss {name}": loss, f"kl {name}": kl}
    if name == CLEAN:
      values["tokens"] = mask
    position = _position_group(step.host.positions[:, :-1])
    for tally, groups in (
      (self.by_document, step.documents[:, :-1]),
      (self.by_position, position),
    ):
      tally.add(tally.places(groups, mask), values)
    self._steps[name] = self._steps.get(name, 0) + 1

  def figures(self) -> Figures:
    """Returns the sums as arrays, exactly."""
    return {
      **{f"steps/{name}": np.array(n) for name, n in self._steps.items()},
      **self.by_document.figures("document/"),
      **self.by_position.figures("position/"),
    }

  def recall(self, found: Figures | None) -> None:
    """Goes on with the sums that `figures` returned; None: with none."""
    if found is None:
      return
    self.by_document.recall(found, "document/")
    self.by_position.recall(found, "position/")
    for name, count in found.items():
      if name.startswith("steps/"):
        self._steps[name.removeprefix("steps/")] = int(count)


def _position_group(positions: np.ndarray) -> np.ndarray:
  """Returns ⌊log2(position + 1)⌋, the number of a group of positions."""
  return np.frexp(positions + 1.0)[1] - 1


def _positions_of(group: int) -> str:
  """Returns the positions of a group, as text."""
  first, last = 2**group - 1, 2 ** (group + 1) - 2
  return str(first) if first == last else f"{first}-{last}"


def _check_tokens(sums: _Sums) -> None:
  if not len(sums.by_document) or not sums.by_document.total("tokens"):
    raise UserError(
      "The held-out batches hold no token to predict; hold out a larger share"
      " of the documents, or measure the loss on more batches."
    )


def _loss_of(lm: Lm, stream: jax.Array, clean: jax.Array, step: Step):
  """Returns losses, divergences and their mask, [B, T-1] on the host."""
  return pod.to_host(meshes.wait_for(stream_loss(lm, stream, clean, step.text)))


@jax.jit
def stream_loss(
  lm: Lm, stream: jax.Array, clean: jax.Array, step: TokenBatch
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns `loss_and_kl` of the stream of a step."""
  return loss_and_kl(lm, stream, clean, step.tokens, step.segments)


def _fidelity(
  sums: _Sums,
  name: str,
  taps: Taps,
  kind: Callable[[int], str] | None,
) -> Fidelity:
  """Forms the figures of one autoencoder."""
  tally, own = sums.by_document, spliced(name)
  zero, mean = (ablated(how, taps.writes) for how in ("zero", "mean"))
  tokens, total = tally["tokens"], tally.total("tokens")
  loss = {of: tally[f"loss {of}"] for of in (CLEAN, own, zero, mean)}
  losses = [float(x.sum() / total) for x in loss.values()]
  errors = [
    standard_error(loss[of] - loss[CLEAN], tokens) for of in (zero, mean)
  ]
  kl = [tally.total(f"kl {of}") / total for of in (own, zero, mean)]
  added = loss[own] - loss[CLEAN]
  return Fidelity(
    int(total),
    *losses,
    *errors,
    *kl,
    by_position=_by_position(sums.by_position, own),
    by_kind=_by_kind(tally.groups, tokens, added, kind),
    ratios={
      "delta_loss": (added, tokens),
      "kl": (tally[f"kl {own}"], tokens),
      "loss_recovered_zero": (
        loss[zero] - loss[own],
        loss[zero] - loss[CLEAN],
      ),
      "loss_recovered_mean": (
        loss[mean] - loss[own],
        loss[mean] - loss[CLEAN],
      ),
    },
  )


def _by_position(tally: Tally, own: str) -> ByGroup:
  added = tally[f"loss {own}"] - tally[f"loss {CLEAN}"]
  found = sorted(zip(tally.groups, tally["tokens"], added, strict=True))
  return _grouped([(_positions_of(group), n, x) for group, n, x in found])


def _by_kind(
  documents: Sequence[int],
  tokens: np.ndarray,
  added: np.ndarray,
  kind: Callable[[int], str] | None,
) -> ByGroup:
  if kind is None:
    return ByGroup((), (), ())
  kinds = np.array([kind(document) for document in documents])
  within = {label: kinds == label for label in sorted(set(kinds.tolist()))}
  return _grouped(
    (label, tokens[some].sum(), added[some].sum())
    for label, some in within.items()
  )


def _grouped(found: Iterable[tuple[str, float, float]]) -> ByGroup:
  """Forms means, given the label, tokens and added loss of each group."""
  kept = [(label, int(n), float(x / n)) for label, n, x in found if n]
  return ByGroup(*zip(*kept, strict=True)) if kept else ByGroup((), (), ())
