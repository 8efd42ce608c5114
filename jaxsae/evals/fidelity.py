"""The language model's loss when a reconstruction replaces an activation.

Shapes: B batch, T time, D site width.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae import mesh as meshes
from jaxsae import pod
from jaxsae.errors import UserError
from jaxsae.lm import Lm, Patch, Site, Splice, next_token_loss, run, splice
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


Edits = dict[Site, Splice | Patch]


def measure_fidelity(
  lm: Lm,
  saes: Mapping[str, tuple[Site, Sae]],
  means: Mapping[Site, np.ndarray],
  batches: Iterable[TokenBatch],
) -> dict[str, Fidelity]:
  """Measures the loss of the model clean, ablated and spliced.

  Only text is edited; the activations of special tokens stay as they are.

  Args:
    lm: the language model.
    saes: name → site and autoencoder of raw activations, or a pair of sites
      and transcoder. Those of one shape at one site share one compiled
      function.
    means: mean activation [D] of each site that is written, for mean ablation.
    batches: the text, [B, T].

  Raises:
    UserError: the batches hold no token to predict.
  """
  variants = _variants(saes, means)
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
    name: _fidelity(losses, tokens, name, site.output)
    for name, (site, _) in saes.items()
  }


def _variants(saes, means) -> dict[str, Edits]:
  """Returns the edits of each forward pass, by the name of the pass."""
  variants = {"clean": {}}
  for site in sorted({site.output for site, _ in saes.values()}):
    mean = np.asarray(means[site], np.float32)
    variants[f"mean {site}"] = {site: Patch(mean)}
    variants[f"zero {site}"] = {site: Patch(np.zeros_like(mean))}
  for name, (site, sae) in saes.items():
    variants[f"spliced {name}"] = {site: Splice(sae)}
  return variants


@jax.jit
def _loss(lm: Lm, batch: TokenBatch, edits: Edits):
  """Returns Σ cross-entropy in nats with edits on text, and how many tokens."""
  tokens, segments = batch.tokens, batch.segments
  text = lm.text_mask(tokens, segments)
  on_text = {}
  for site, edit in edits.items():
    on_text |= splice(site, edit.replace(mask=text))
  logits = run(lm, tokens, on_text, **batch.packing)
  losses, mask = next_token_loss(logits, tokens, segments)
  return jnp.sum(losses), jnp.sum(mask, dtype=jnp.int32)


def _fidelity(losses, tokens: int, name: str, site: Site) -> Fidelity:
  return Fidelity(
    tokens=tokens,
    clean_loss=losses["clean"],
    spliced_loss=losses[f"spliced {name}"],
    zero_loss=losses[f"zero {site}"],
    mean_loss=losses[f"mean {site}"],
  )
