"""The next tokens that a direction promotes and suppresses.

Shapes: F latents, D site width, M embed_dim, V vocabulary.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae import pod
from jaxsae.lm import Lm, Site

_MAX_LOGITS = 2**24  # in memory at a time


class Effects(NamedTuple):
  """The E most promoted and E most suppressed tokens of F directions."""

  promoted: np.ndarray  # int32 [F, E] token ids, strongest first
  promoted_values: np.ndarray  # [F, E]
  suppressed: np.ndarray  # int32 [F, E], most negative first
  suppressed_values: np.ndarray  # [F, E]


def logit_effects(
  lm: Lm, site: Site, directions: jax.Array, count: int
) -> Effects:
  """Finds the tokens whose logits each direction raises and lowers most.

  The effect is the direct one on the logits, minus its mean over tokens:

    effect[v] = (d ⊙ gain of the final norm) · E[v], d in the residual stream

  This approximation is known as the logit lens: it leaves out later layers,
  the final norm's division by the RMS, and the soft cap. At `attn` the
  direction first goes through the layer's W_O and the gain of the norm after
  it, again without the division. So only the order and the relative sizes of a
  direction's effects have a meaning. At `mlp_in` there are none, because only
  the MLP reads that site, and it is not linear.

  Args:
    lm: the language model.
    site: the site that the directions are written to.
    directions: [F, D], the rows of the decoder.
    count: E, the number of promoted and of suppressed tokens.
  """
  if site.where == "mlp_in":
    return _no_effects(len(directions))
  table, gain = lm.unembedding()
  written = lm.to_stream(site, directions) * gain[None]
  rows = max(1, _MAX_LOGITS // len(table))
  blocks = [
    pod.to_host(_extremes(written[at : at + rows], table, count))
    for at in range(0, len(written), rows)
  ]
  return Effects(*map(np.concatenate, zip(*blocks, strict=True)))


def _no_effects(latents: int) -> Effects:
  ids, values = np.zeros((latents, 0), np.int32), np.zeros((latents, 0))
  return Effects(ids, values, ids, values)


@functools.partial(jax.jit, static_argnames="count")
def _extremes(written, table, count):
  """Returns the fields of `Effects`, for stream vectors `written` [F, M]."""
  effect = jnp.einsum(
    "fm,vm->fv",
    # A copy of the table in float32 would be as large as a small model.
    written.astype(table.dtype),
    table,
    precision="highest",
    preferred_element_type=jnp.float32,
  )
  effect -= jnp.mean(effect, axis=1, keepdims=True)
  most, promoted = jax.lax.top_k(effect, count)
  least, suppressed = jax.lax.top_k(-effect, count)
  return promoted, most, suppressed, -least
