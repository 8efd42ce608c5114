"""The figures of one autoencoder, and what each of them means."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsae.evals.fidelity import ByGroup
from jaxsae.evals.intervals import Interval
from jaxsae.lm import Place

VERSION = 2  # of the record; 1 had neither intervals nor controls

# The shares of living latents whose density is told.
PERCENTILES = (5, 25, 50, 75, 95)

# The figures that are told of a control.
OF_CONTROL = (
  "tokens",
  "l0",
  "fvu",
  "loss_tokens",
  "delta_loss",
  "kl",
  "loss_recovered_zero",
  "loss_recovered_mean",
)


def _means(definition: str, default: Any = math.nan) -> Any:
  """Declares a figure with what it means."""
  meaning = {"means": definition}
  if isinstance(default, dict):
    return dataclasses.field(default_factory=dict, metadata=meaning)
  return dataclasses.field(default=default, metadata=meaning)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Result:
  """The evaluation of one autoencoder; `DEFINITIONS` explains each figure.

  Losses are in nats. A ratio is NaN where it is undefined. `density` [F] is the
  share of tokens on which each latent is active.
  """

  name: str
  site: Place
  width: int

  tokens: int = _means(
    "held-out text tokens read; BOS, EOS and padding never count", 0
  )
  documents: int = _means("documents that these tokens are of", 0)
  l0: float = _means("mean active latents of a token")
  l1: float = _means("mean sum of a token's latents")
  fvu: float = _means(
    "Σ‖y - ŷ‖² / Σ‖y - mean y‖², both over all tokens, with y the activation"
    " that is to be reconstructed"
  )
  mse: float = _means("mean of ‖y - ŷ‖²")
  normalised_mse: float = _means("Σ‖y - ŷ‖² / Σ‖y‖²")
  cosine: float = _means("mean cosine of y and ŷ")
  norm_ratio: float = _means("mean of ‖ŷ‖ / ‖y‖")
  reconstruction_bias: float = _means("Σ‖ŷ‖² / Σ y·ŷ; 1 is unbiased")
  legacy_fvu_per_token: float = _means(
    "mean over tokens of ‖y - ŷ‖² / ‖y - mean y‖², the mean being that of a"
    " step: 1 - SAELens' explained_variance_legacy"
  )
  legacy_fvu_of_variances: float = _means(
    "Σ‖e - mean e‖² / Σ‖y - mean y‖² with e = y - ŷ: 1 - the"
    " frac_variance_explained of dictionary_learning, which a constant error"
    " does not change"
  )
  gamma: float = _means(
    "‖mean x‖ / √(mean ‖x - mean x‖²) of the activation that is read"
  )
  dead: float = _means("share of latents active on none of the tokens")
  density_above_1_percent: float = _means(
    "share of latents active on more than 1 % of tokens"
  )
  density_above_10_percent: float = _means(
    "share of latents active on more than 10 % of tokens"
  )
  density_percentiles: Mapping[str, float] = _means(
    "percentiles of the density of the latents that are not dead", {}
  )
  interference: float = _means(
    "mean over latents of the largest cosine of a direction with another one"
  )
  density: np.ndarray = _means(
    "counts of latents by log10 of the share of tokens they are active on;"
    " dead latents are counted apart",
    None,
  )

  loss_tokens: int = _means("next tokens predicted for the losses", 0)
  clean_loss: float = _means(
    "mean cross-entropy of the language model, in nats"
  )
  spliced_loss: float = _means(
    "the same with the reconstruction in place on all text"
  )
  zero_loss: float = _means(
    "the same with the activation set to zero on all text"
  )
  mean_loss: float = _means(
    "the same with the activation set to its mean on all text"
  )
  delta_loss: float = _means("spliced_loss - clean_loss")
  loss_recovered_zero: float = _means(
    "(zero_loss - spliced_loss) / (zero_loss - clean_loss); null where the"
    " ablation adds no loss that is clearly above zero: above twice its"
    " standard error over documents"
  )
  loss_recovered_mean: float = _means(
    "(mean_loss - spliced_loss) / (mean_loss - clean_loss); null likewise"
  )
  kl: float = _means(
    "mean KL(clean ‖ spliced) of the distributions of the next token, in nats"
  )
  zero_kl: float = _means("the same with the activation set to zero")
  mean_kl: float = _means("the same with the activation set to its mean")
  kl_recovered_zero: float = _means("(zero_kl - kl) / zero_kl")
  delta_loss_by_position: ByGroup = _means(
    "delta_loss by the position in its segment of the token that predicts",
    ByGroup((), (), ()),
  )
  delta_loss_by_kind: ByGroup = _means(
    "delta_loss by the kind of document, its suffix", ByGroup((), (), ())
  )

  intervals: Mapping[str, Interval] = _means(
    "95 % intervals of figures, by a bootstrap over documents; null where there"
    " are too few",
    {},
  )
  controls: Mapping[str, "Result"] = _means(
    "the same figures of controls of equal L0, on their own tokens:"
    " random_decoder has the autoencoder's latents and random directions,"
    " random_encoder has random latents and directions fitted to them, pca is"
    " the best linear map whose rank is L0; all are fitted to the text that"
    " they are measured on",
    {},
  )

  def to_json(self) -> dict[str, Any]:
    """Returns the record for a file: density as a histogram, null for NaN."""
    record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    record |= {
      "site": str(self.site),
      "density": self._histogram(),
      "delta_loss_by_position": vars(self.delta_loss_by_position),
      "delta_loss_by_kind": vars(self.delta_loss_by_kind),
      "controls": {
        name: {figure: getattr(one, figure) for figure in OF_CONTROL}
        for name, one in self.controls.items()
      },
    }
    return {"version": VERSION} | _finite(record)

  def _histogram(self) -> dict[str, Any]:
    """Counts latents by log10 density, in four bins a decade.

    The lowest edge is at most 1/n, the least density that n tokens can show.
    Edges are multiples of 1/4, so histograms of different n line up.
    """
    lowest = min(-1, math.floor(-math.log10(self.tokens)))
    edges = np.linspace(lowest, 0, 1 - 4 * lowest)
    alive = self.density[self.density > 0]
    counts, _ = np.histogram(np.log10(alive), edges)
    return {
      "log10_edges": edges.tolist(),
      "counts": counts.tolist(),
      "dead": len(self.density) - len(alive),
    }


# The meaning of each name in the file; written into it.
DEFINITIONS: Mapping[str, str] = {
  field.name: field.metadata["means"]
  for field in dataclasses.fields(Result)
  if field.metadata
}


def _finite(value: Any) -> Any:
  """Returns None for a float that is not finite, which JSON cannot hold."""
  if isinstance(value, Mapping):
    return {name: _finite(x) for name, x in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(x) for x in value]
  is_finite = not isinstance(value, float) or math.isfinite(value)
  return value if is_finite else None
