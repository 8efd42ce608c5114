"""The data of a report: the results of a survey, as arrays.

Shapes: F latents, K contexts of a latent, W tokens of a context.
"""

import dataclasses
import operator

import numpy as np

from jaxsae.brief import fields


@dataclasses.dataclass(frozen=True)
class Contexts:
  """Contexts of each latent: the strongest, then some of lower quantiles.

  Each of the two parts has the strongest first.
  """

  tokens: np.ndarray  # [F, K, W] int32 token ids, -1 where there is no token
  activations: np.ndarray  # [F, K, W] float32, at least 0
  peak: np.ndarray  # [F, K] index in W of the strongest token
  position: np.ndarray  # [F, K] position of that token in its sequence
  document: np.ndarray  # [F, K] index into the report's documents
  count: np.ndarray  # [F] number of contexts, at most K
  top: np.ndarray  # [F] of these, the number of the strongest

  __repr__ = fields


@dataclasses.dataclass(frozen=True)
class SaeReport:
  """Everything that a report shows about one autoencoder.

  Metrics are l0, fvu, delta_loss (nats), loss_recovered_zero,
  loss_recovered_mean, dead (a share between 0 and 1), target_l0 (or None) and
  tokens (the number of tokens they were measured on). A latent has E promoted
  and E suppressed tokens, and M neighbours.
  """

  name: str  # unique, such as "resid.3/l0_32"
  site: str  # such as "resid.3"
  width: int  # F
  metrics: dict
  density: np.ndarray  # [F] share of held-out tokens each latent fires on
  max_activation: np.ndarray  # [F]
  histogram: np.ndarray  # [F, bins] counts, linear from 0 to max_activation
  contexts: Contexts
  promoted: np.ndarray  # [F, E] token ids, strongest first
  promoted_values: np.ndarray  # [F, E] effect on the logits
  suppressed: np.ndarray  # [F, E]
  suppressed_values: np.ndarray  # [F, E]
  neighbours: np.ndarray  # [F, M] latents, nearest first
  neighbour_cosines: np.ndarray  # [F, M] cosine of decoder directions
  load: str = ""  # Python that defines lm, taps and sae, where there is any

  __repr__ = fields

  def __post_init__(self):
    context = self.contexts.tokens.shape[:2]
    effects, near = self.promoted.shape, self.neighbours.shape
    bins = self.histogram.shape[-1]
    expected = {
      "density": (self.width,),
      "max_activation": (self.width,),
      "histogram": (self.width, bins),
      "contexts.tokens": (self.width, *self.contexts.tokens.shape[1:]),
      "contexts.activations": self.contexts.tokens.shape,
      "contexts.peak": context,
      "contexts.position": context,
      "contexts.document": context,
      "contexts.count": (self.width,),
      "contexts.top": (self.width,),
      "promoted": (self.width, *effects[1:]),
      "promoted_values": effects,
      "suppressed": effects,
      "suppressed_values": effects,
      "neighbours": (self.width, *near[1:]),
      "neighbour_cosines": near,
    }
    for field, shape in expected.items():
      found = operator.attrgetter(field)(self).shape
      if found != shape:
        raise ValueError(f"{self.name}: {field} is {found}, not {shape}")


@dataclasses.dataclass(frozen=True)
class Report:
  """Everything that a report shows: a run, its autoencoders and their text."""

  title: str
  run: dict  # label → value, in order; the first four are always in view
  saes: list[SaeReport]
  vocabulary: list[str]  # the text of each token id; untrusted
  documents: list[str]  # names of the documents that contexts come from

  __repr__ = fields

  def __post_init__(self):
    names = [sae.name for sae in self.saes]
    if not names or len(set(names)) < len(names):
      raise ValueError(f"a report needs distinct autoencoders, not {names}")
