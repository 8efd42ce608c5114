"""TopK: on each token the k largest latents are active, for k = L0*.

(Gao et al., arXiv 2406.04093.) Shapes: N tokens, F latents.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxsae.errors import UserError
from jaxsae.sae import kth_largest
from jaxsae.sae.architectures.architecture import fold
from jaxsae.sae.architectures.topk_base import TopKBase
from jaxsae.sae.model import Sae


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopK(TopKBase):
  """TopK, with k the target L0 rounded to a whole number."""

  name: ClassVar[str] = "topk"
  whole_target: ClassVar[bool] = True

  def least_active(
    self, pre: jax.Array, mask: jax.Array, target: jax.Array
  ) -> jax.Array:
    """Returns the k-th largest of each token, [N, 1]."""
    del mask
    return kth_largest.kth_largest(pre, jnp.round(target).astype(jnp.uint32))

  def fold(
    self,
    params: Sae,
    scale_in: jax.Array | float,
    scale_out: jax.Array | float,
    *,
    target: float | None = None,
  ) -> Sae:
    """Folds it with k, which no scale changes.

    If several are written, directions keep the norms that scales give: with
    unit norms again, other latents would be the k largest.

    Raises:
      UserError: `target` is missing.
    """
    if target is None:
      raise UserError("folding TopK needs target=, the k it was trained with")
    centred, unit = not self.transcodes, not jnp.ndim(scale_out)
    folded = fold(params, scale_in, scale_out, centred=centred, unit=unit)
    return folded.replace(k=round(float(target)))
