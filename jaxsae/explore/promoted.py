"""Which next tokens a direction speaks for and against.

Letters in shapes: F latents, D site width, M embed_dim, V vocabulary.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae.lm import Lm, Site

_AT_ONCE = 2**24  # logits held at a time


class Effects(NamedTuple):
  """The tokens at both ends, E of each; named as in `SaeReport`."""

  promoted: np.ndarray  # int32 [F, E] token ids, strongest first
  promoted_values: np.ndarray  # [F, E]
  suppressed: np.ndarray  # int32 [F, E], most negative first
  suppressed_values: np.ndarray  # [F, E]


def logit_effects(
  lm: Lm, site: Site, directions: jax.Array, count: int
) -> Effects:
  """The direct effect of each direction on the logits, minus its mean.

    effect[v] = (d ⊙ (1 + final_norm.scale)) · E[v], d in the residual stream

  This is the approximation known as the logit lens: what later layers make of
  the direction, the final norm's division by its rms and the soft cap are left
  out. At `attn` the direction goes through that layer's W_O and the gain of
  the norm behind it first, again without dividing. So only the order and the
  relative size of a latent's effects mean something. At `mlp_in` there are
  none: the MLP is all that reads it, and nothing in it is linear.

  Args:
    site: that the directions are written to; of a pair, its output.
    directions: [F, D], the rows of the decoder.
    count: how many promoted and how many suppressed tokens.
  """
  if site.where == "mlp_in":
    return _no_effects(len(directions))
  table = lm.params["embedder"]["input_embedding"]
  written = to_stream(lm, site, directions) * _gain(lm.params["final_norm"])
  rows = max(1, _AT_ONCE // len(table))
  blocks = [
    jax.device_get(_ends(written[at : at + rows], table, count))
    for at in range(0, len(written), rows)
  ]
  return Effects(*map(np.concatenate, zip(*blocks, strict=True)))


def _no_effects(latents: int) -> Effects:
  ids, values = np.zeros((latents, 0), np.int32), np.zeros((latents, 0))
  return Effects(ids, values, ids, values)


def to_stream(lm: Lm, site: Site, directions: jax.Array) -> jax.Array:
  """What directions [F, D] add to the residual stream: [F, M].

  They are of `resid` or `mlp`, which lie in the stream, or of `attn`.
  """
  if site.where != "attn":
    return directions
  layer = lm.params[f"layer_{site.layer}"]
  out = layer["attn"]["attn_vec_einsum"]["w"]
  out = out.reshape(-1, out.shape[-1])
  written = jnp.matmul(directions, out, precision="highest")
  return written * _gain(layer["post_attention_norm"])


def _gain(norm):
  return 1 + norm["scale"][None]


@functools.partial(jax.jit, static_argnames="count")
def _ends(written, table, count):
  """`Effects` of written [F, M], in the order of its fields."""
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
