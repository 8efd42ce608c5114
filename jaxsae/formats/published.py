"""The record of one published autoencoder: its arrays and what is known."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsae.brief import fields
from jaxsae.errors import UserError
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
    input_gain: [D_in] for a transcoder of ours, which reads input_gain ⊙ n,
      with n the MLP's input before the gain of its norm: that gain.
    model: the language model's name or path, as `load_lm` takes it.
    data: the text that it was trained on; for a run, `DataConfig` as JSON.
    recipe: the settings of its training; for a run, `TrainConfig` as JSON.
    metrics: name → value; the names of `evals.Result`, such as `l0`.
    licence: the SPDX name of the licence, such as `cc-by-4.0`.
    before_gain: whether the arrays, if they are a transcoder's, read n itself.
  """

  sae: Sae
  taps: Taps | None = None
  input_gain: np.ndarray | None = None
  model: str | None = None
  data: Mapping[str, Any] | None = None
  recipe: Mapping[str, Any] | None = None
  metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
  licence: str | None = None
  before_gain: bool = False

  __repr__ = fields

  def taps_and_l0(self) -> tuple[Taps, int]:
    """Returns what folders are named after: the taps, and L0 as a whole number.

    Raises:
      UserError: one of them is not known.
    """
    if self.taps is None or "l0" not in self.metrics:
      raise UserError(
        "Folders of a release are named after site and L0, which are not both"
        " known; give the record taps and metrics={'l0': …}, or --site= and"
        " --l0= to jaxsae convert."
      )
    return self.taps, round(self.metrics["l0"])


def figures(found: object) -> dict[str, float]:
  """Returns the finite numbers of a mapping that is not trusted, by name."""
  numbers: dict[str, float] = {}
  for name, value in found.items() if isinstance(found, dict) else ():
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # JSON's whole numbers have any size; its others may be NaN or infinite.
    if is_number and abs(value) < 1e30:
      numbers[name] = float(value)
  return numbers
