"""The language model's loss when a reconstruction replaces an activation.

Shapes: B batch, T time, D site width.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae import mesh as meshes
from jaxsae import pod
from jaxsae.errors import UserError
from jaxsae.lm import (
  Lm,
  Patch,
  Place,
  Site,
  Splice,
  Taps,
  next_token_loss,
  run,
  splice,
)
from jaxsae.lm.sites import names
from jaxsae.sae import Sae
from jaxsae.token_batch import TokenBatch


@dataclasses.dataclass(frozen=True)
class Fidelity:
  """Mean cross-entropies of the same next tokens, in nats.

  Attributes:
    tokens: number of next tokens predicted.
    clean_loss: loss of the unchanged language model.
    spliced_loss: loss with the reconstruction in place of the activation.
    zero_loss: loss with zeros in place of the activation.
    mean_loss: loss with the site's mean activation in place of it.
  """

  tokens: int
  clean_loss: float
  spliced_loss: float
  zero_loss: float
  mean_loss: float

  @property
  def delta_loss(self) -> float:
    """The loss that the splice adds, in nats."""
    return self.spliced_loss - self.clean_loss

  @property
  def loss_recovered_zero(self) -> float:
    """(CE_zero - CE_spliced) / (CE_zero - CE_clean): 1 is lossless."""
    return self._recovered(self.zero_loss)

  @property
  def loss_recovered_mean(self) -> float:
    """(CE_mean - CE_spliced) / (CE_mean - CE_clean): 1 is lossless."""
    return self._recovered(self.mean_loss)

  def _recovered(self, ablated: float) -> float:
    """Returns the recovered share, or NaN if the ablation changes nothing."""
    lost = ablated - self.clean_loss
    return (ablated - self.spliced_loss) / lost if lost else math.nan


Edits = dict[Site, Patch] | dict[Taps, Splice]


def measure_fidelity(
  lm: Lm,
  saes: Mapping[str, tuple[Place, Sae]],
  means: Mapping[Site, np.ndarray],
  batches: Iterable[TokenBatch],
) -> dict[str, Fidelity]:
  """Measures the loss of the model clean, ablated and spliced.

  Only text is edited; the activations of special tokens stay as they are.

  Args:
    lm: the language model.
    saes: name → site and autoencoder of raw activations, or the taps and a
      transcoder or crosscoder. Those of one shape at one site share one
      compiled function.
    means: mean activation [D] of each site that is written, for mean ablation.
    batches: the text, [B, T].

  Raises:
    UserError: the batches hold no token to predict.
  """
  placed = {name: (Taps.of(at), sae) for name, (at, sae) in saes.items()}
  variants = _variants(placed, means)
  totals, tokens = dict.fromkeys(variants, 0.0), 0
  for batch in batches:
    sums = {
      key: meshes.wait_for(_loss(lm, batch, edits))
      for key, edits in variants.items()
    }
    sums = pod.to_host(sums)
    tokens += int(sums["clean"][1])
    totals = {key: totals[key] + float(sums[key][0]) for key in variants}
  if not tokens:
    raise UserError(
      "The held-out batches hold no token to predict; hold out a larger share"
      " of the documents, or measure the loss on more batches."
    )
  losses = {key: total / tokens for key, total in totals.items()}
  return {
    name: _fidelity(losses, tokens, name, taps)
    for name, (taps, _) in placed.items()
  }


def _variants(placed, means) -> dict[str, Edits]:
  """Returns the edits of each forward pass, by the name of the pass."""
  variants = {"clean": {}}
  for written in sorted({taps.writes for taps, _ in placed.values()}):
    mean = {site: np.asarray(means[site], np.float32) for site in written}
    zero = jax.tree.map(np.zeros_like, mean)
    variants[_ablated("mean", written)] = _patches(mean)
    variants[_ablated("zero", written)] = _patches(zero)
  for name, (taps, sae) in placed.items():
    variants[f"spliced {name}"] = {taps: Splice(sae)}
  return variants


def _patches(values: Mapping[Site, np.ndarray]) -> dict[Site, Patch]:
  return {site: Patch(value) for site, value in values.items()}


def _ablated(how: str, written: Sequence[Site]) -> str:
  """Returns the name of the pass in which some sites are ablated."""
  return f"{how} {names(written)}"


@jax.jit
def _loss(lm: Lm, batch: TokenBatch, edits: Edits):
  """Returns Σ cross-entropy in nats with edits on text, and how many tokens."""
  tokens, segments = batch.tokens, batch.segments
  text = lm.text_mask(tokens, segments)
  on_text = {}
  for place, edit in edits.items():
    on_text |= splice(place, edit.replace(mask=text))
  logits = run(lm, tokens, on_text, **batch.packing)
  losses, mask = next_token_loss(logits, tokens, segments)
  return jnp.sum(losses), jnp.sum(mask, dtype=jnp.int32)


def _fidelity(losses, tokens: int, name: str, taps: Taps) -> Fidelity:
  return Fidelity(
    tokens=tokens,
    clean_loss=losses["clean"],
    spliced_loss=losses[f"spliced {name}"],
    zero_loss=losses[_ablated("zero", taps.writes)],
    mean_loss=losses[_ablated("mean", taps.writes)],
  )
