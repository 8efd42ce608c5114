"""Tells, once for each autoencoder, when its sparsity has stopped obeying."""

from jaxsae.sae import JumpRelu
from jaxsae.train.config.run import TrainConfig

FROZEN = 1e-6  # relative movement of θ in a bucket, below which it stands still
PATIENCE = 20  # buckets
OFF_TARGET = 0.2  # relative distance of L0
# Pre-activations inside the kernel, as a share of all, and of the active ones:
# at a width of a million even a sound window holds few of all.
EMPTY, EMPTY_OF_ACTIVE = 1e-5, 1e-2


class SparsityCheck:
  """Follows the figures of a run, bucket by bucket."""

  def __init__(self, config: TrainConfig):
    self._of = {
      name: (stack, member)
      for stack in config.stacks
      for name, member in zip(stack.names, stack.members, strict=True)
      if isinstance(stack.architecture, JumpRelu)
    }
    self._still_since: dict[str, int] = {}
    self._said: set[tuple[str, str]] = set()

  def warnings(self, step: int, values: dict[str, dict]) -> list[str]:
    """What to say after this bucket; of each kind and name only once.

    Args:
      step: number of the bucket.
      values: autoencoder → figure → value, as logged.
    """
    found = []
    for name in self._of:
      v = values[name]
      if self._is_frozen(step, name, v) and self._is_news("frozen", name):
        found.append(self._frozen(name, v))
      if self._is_empty(name, v) and self._is_news("empty", name):
        found.append(self._empty(name, v))
    return found

  def _is_frozen(self, step, name, v) -> bool:
    target = self._of[name][1].target
    if target is None or not (
      v["moved"] < FROZEN and abs(v["l0"] / target - 1) > OFF_TARGET
    ):
      self._still_since.pop(name, None)
      return False
    # `moved` is of the bucket that led here, so that one counts.
    return step - self._still_since.setdefault(name, step) + 1 >= PATIENCE

  def _is_news(self, *what) -> bool:
    news = what not in self._said
    self._said.add(what)
    return news

  def _frozen(self, name, v) -> str:
    return (
      f"warning: {name}: thresholds have stood still for {PATIENCE} buckets at"
      f" L0 {v['l0']:.4g}, target {self._of[name][1].target:g}; raise"
      f" --sae.bandwidth (now {self._bandwidth(name):g}), --sae.optim.lr or"
      " --sae.sparsity_coefficient."
    )

  def _empty(self, name, v) -> str:
    return (
      f"warning: {name}: λ has lost its hold on thresholds: a share of"
      f" {v['in_window']:.1e} of pre-activations lies within ε/2 of them; raise"
      f" --sae.bandwidth (now {self._bandwidth(name):g}), or lower"
      " --sae.optim.lr if L0 has just fallen."
    )

  def _is_empty(self, name, v) -> bool:
    active = v["l0"] / self._of[name][0].width
    return v["in_window"] <= min(EMPTY, EMPTY_OF_ACTIVE * active)

  def _bandwidth(self, name) -> float:
    return self._of[name][0].sweep.bandwidth
