"""The record of one published autoencoder: its arrays and what is known."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsae.brief import fields
from jaxsae.lm import Taps
from jaxsae.sae import Sae


@dataclasses.dataclass(frozen=True, eq=False)
class Published:
  """One autoencoder with what its file says about it, whatever the format.

  A field that the file does not fill is None, or an empty mapping; nothing is
  guessed.

  Attributes:
    sae: the arrays, on raw activations.
    taps: the sites of the language model that it reads and writes.
    input_gain: [D_in] for a transcoder, which reads input_gain ⊙ n, with n the
      MLP's input before the gain of its norm: the norm's gain at our own sites,
      ones where the arrays read n itself.
    model: the language model's name or path, as `load_lm` takes it.
    data: the text that it was trained on; for a run, `DataConfig` as JSON.
    recipe: the settings of its training; for a run, `TrainConfig` as JSON.
    metrics: name → value; the names of `evals.Result`, such as `l0`.
    licence: the SPDX name of the licence, such as `cc-by-4.0`.
  """

  sae: Sae
  taps: Taps | None = None
  input_gain: np.ndarray | None = None
  model: str | None = None
  data: Mapping[str, Any] | None = None
  recipe: Mapping[str, Any] | None = None
  metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
  licence: str | None = None

  __repr__ = fields
