"""Alarms about thresholds that no longer follow λ or the target L0."""

from collections.abc import Mapping

FROZEN = 1e-6  # relative movement of θ in a bucket, below which it is frozen
PATIENCE = 20  # buckets
OFF_TARGET = 0.2  # relative distance of L0 from its target
# Pre-activations inside the kernel, as a share of all, and of the active ones:
# at a width of a million even a healthy window holds few of all.
EMPTY, EMPTY_OF_ACTIVE = 1e-5, 1e-2


class FrozenThresholds:
  """Tells that thresholds have stopped moving while L0 is off its target.

  Args:
    bandwidth: ε of the kernel.
    target: L0*, or None, where L0 has no target to be off.
  """

  def __init__(self, bandwidth: float, target: float | None):
    self._bandwidth, self._target = bandwidth, target
    self._frozen_since: int | None = None

  def observe(self, step: int, figures: Mapping[str, float]) -> str | None:
    """Returns a message after PATIENCE buckets without movement."""
    if not self._is_frozen(figures):
      self._frozen_since = None
      return None
    if self._frozen_since is None:
      self._frozen_since = step
    # `moved` is about the bucket that led here, so that one counts.
    if step - self._frozen_since + 1 < PATIENCE:
      return None
    return (
      f"thresholds have stood still for {PATIENCE} buckets at L0"
      f" {figures['l0']:.4g}, target {self._target:g}; raise --sae.bandwidth"
      f" (now {self._bandwidth:g}), --sae.optim.lr or"
      " --sae.sparsity_coefficient."
    )

  def _is_frozen(self, figures: Mapping[str, float]) -> bool:
    if self._target is None:
      return False
    off = abs(figures["l0"] / self._target - 1)
    return figures["moved"] < FROZEN and off > OFF_TARGET


class EmptyWindow:
  """Tells that so few pre-activations lie near thresholds that λ is powerless.

  Args:
    bandwidth: ε of the kernel.
    width: number of latents.
  """

  def __init__(self, bandwidth: float, width: int):
    self._bandwidth, self._width = bandwidth, width

  def observe(self, step: int, figures: Mapping[str, float]) -> str | None:
    """Returns a message if the kernel holds almost no pre-activations."""
    del step
    if not self._is_empty(figures):
      return None
    return (
      "λ has lost its hold on thresholds: a share of"
      f" {figures['in_window']:.1e} of pre-activations lies within ε/2 of them;"
      f" raise --sae.bandwidth (now {self._bandwidth:g}), or lower"
      " --sae.optim.lr if L0 has just fallen."
    )

  def _is_empty(self, figures: Mapping[str, float]) -> bool:
    active = figures["l0"] / self._width
    return figures["in_window"] <= min(EMPTY, EMPTY_OF_ACTIVE * active)
