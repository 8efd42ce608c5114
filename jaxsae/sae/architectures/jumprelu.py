"""JumpReLU: each latent learns a threshold by straight-through gradients.

(Rajamanoharan et al., arXiv 2407.14435; trained as Gemma Scope's, arXiv
2408.05147 §3.2.) Shapes: N tokens, D_in, D, F latents.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxsae.sae.architectures.alarm import Alarm
from jaxsae.sae.architectures.architecture import (
  Architecture,
  UpdateInputs,
  UpdateStats,
  UpdateTokens,
  update_stats,
)
from jaxsae.sae.architectures.threshold_alarms import (
  EmptyWindow,
  FrozenThresholds,
)
from jaxsae.sae.model import Sae
from jaxsae.sae.penalty import L0, Activity, Penalty, mean
from jaxsae.sae.straight_through import Kernel

# Any small number will do: Adam scales a lone gradient to the usual size.
WAKE = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class JumpRelu(Architecture):
  """JumpReLU, the default architecture.

  Attributes:
    kernel: the kernel of the straight-through gradients.
    penalties: the penalties, which add up, all with the same λ.
    threshold: θ at the start.
  """

  name: ClassVar[str] = "jumprelu"

  kernel: Kernel = Kernel(1e-3)
  penalties: tuple[Penalty, ...] = (L0(),)
  threshold: float = 1e-3

  def init(self, key: jax.Array, d_in: int, d: int, width: int) -> Sae:
    start = self.start(key, d_in, d, width)
    return Sae(**start, threshold=jnp.full(width, self.threshold))

  def loss(
    self, params: Sae, tokens: UpdateTokens, inputs: UpdateInputs
  ) -> tuple[jax.Array, UpdateStats]:
    """Returns the mean of ‖y - ŷ‖², plus penalties, plus WAKE Σ θ of the dead.

    The encoder reads x - b_dec, as in Gemma Scope; `fold` undoes that. A dead
    latent has no token near its threshold and so no gradient; WAKE · θ lowers
    its threshold until it fires. (Anthropic's pre-activation loss, Σ relu(θ -
    z) over dead latents, does the same, but also turns all of their encoders
    towards the mean activation.)
    """
    pre = self.encode(params, tokens.x)
    seen = self._activity(pre, params.threshold, params, tokens)
    squared = self.squared_errors(params, seen.latents, tokens)
    value = mean(sum(squared, jnp.zeros(())), tokens.mask) + self._paid(
      seen, inputs
    )
    wake = WAKE * jnp.sum(jnp.where(inputs.dead, params.threshold, 0.0))
    return value + wake, update_stats(tokens, value, squared[-1], seen.active)

  def _activity(self, pre, threshold, params, tokens):
    return Activity(pre, threshold, params.w_dec, tokens.mask, self.kernel)

  def _paid(self, seen, inputs):
    paid = [p(seen, inputs.coefficient, inputs.target) for p in self.penalties]
    return sum(paid, jnp.zeros(()))

  def diagnose(
    self, before: Sae, params: Sae, tokens: UpdateTokens, inputs: UpdateInputs
  ) -> dict[str, jax.Array]:
    """Returns figures of the thresholds.

    in_window: the share of pre-activations inside the kernel.
    pull: the penalties' share in the gradient of thresholds: Σ|∂/∂θ| of the
      penalties, over that plus Σ|∂/∂θ| of the rest of the loss.
    threshold: mean θ.
    moved: mean |Δθ| in the bucket, over mean θ before it.
    """
    was, theta = before.threshold, params.threshold
    pre = self.encode(params, tokens.x)
    inside = jnp.mean(self.kernel.holds(pre, theta), axis=-1)

    def pay(theta):
      return self._paid(self._activity(pre, theta, params, tokens), inputs)

    penalty = jax.grad(pay)(theta)
    rest = self.gradients(params, tokens, inputs)[0].threshold - penalty
    pulls = [jnp.sum(jnp.abs(pull)) for pull in (penalty, rest)]
    return {
      "in_window": mean(inside, tokens.mask),
      "pull": _over(pulls[0], sum(pulls)),
      "threshold": jnp.mean(theta),
      "moved": _over(jnp.mean(jnp.abs(theta - was)), jnp.mean(was)),
    }

  def alarms(self, width: int, target: float | None) -> tuple[Alarm, ...]:
    """Makes alarms about frozen thresholds and about empty windows."""
    bandwidth = self.kernel.bandwidth
    return FrozenThresholds(bandwidth, target), EmptyWindow(bandwidth, width)

  def post_update(self, params: Sae, stats: object) -> Sae:
    params = super().post_update(params, stats)
    return params.replace(threshold=jnp.maximum(params.threshold, 0.0))


def _over(part, whole):
  """Divides part by whole; 0 where both are 0."""
  return part / jnp.where(whole > 0, whole, 1)
