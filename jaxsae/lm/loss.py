"""Next-token cross-entropy, with documents kept apart."""

import jax
import jax.numpy as jnp


def next_token_loss(
  logits: jax.Array, tokens: jax.Array, segments: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the cross-entropy of each token given its segment so far.

  Args:
    logits: [B, T, V].
    tokens: int [B, T].
    segments: int [B, T]; 0 is padding.

  Returns:
    losses [B, T-1] in nats, 0 where not counted, and the mask [B, T-1] of
    positions whose next token belongs to the same segment.
  """
  mask = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
  log_probs = jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32))
  chosen = jnp.take_along_axis(log_probs, tokens[:, 1:, None], axis=-1)
  return jnp.where(mask, -chosen[..., 0], 0.0), mask
