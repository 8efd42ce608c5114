"""Keeps the sums of an evaluation that stops, so that a later one resumes."""

from collections.abc import Callable, Mapping

import numpy as np

Figures = Mapping[str, np.ndarray]

# The parts of an evaluation, which its controls have too.
SPARSITY, LOSSES = "sparsity", "losses"
_OF_CONTROLS = "controls_"
PARTS = (SPARSITY, LOSSES, _OF_CONTROLS + SPARSITY, _OF_CONTROLS + LOSSES)


class Keeper:
  """Keeps the sums of an evaluation that may be stopped; this one keeps none.

  An evaluation has the parts in `PARTS`, one after the other. It offers the
  sums of a part after every forward pass, in all processes alike.
  """

  def recall(self, part: str) -> Figures | None:
    """Returns the sums of a part that were kept last, or None."""
    del part

  def offer(self, part: str, sums: Callable[[], Figures], done: bool) -> None:
    """Is offered the sums of a part so far.

    Args:
      part: the part's name.
      sums: makes the sums.
      done: whether an autoencoder's figures, or the part, are now finished.
    """


class OfControls(Keeper):
  """Keeps the sums of the controls beside those of the autoencoders.

  Args:
    keeper: what keeps both.
  """

  def __init__(self, keeper: Keeper):
    self._keeper = keeper

  def recall(self, part: str) -> Figures | None:
    """Returns the sums of a part of the controls."""
    return self._keeper.recall(_OF_CONTROLS + part)

  def offer(self, part: str, sums: Callable[[], Figures], done: bool) -> None:
    """Offers the sums of a part of the controls."""
    self._keeper.offer(_OF_CONTROLS + part, sums, done)
