"""What every architecture has to answer, and what most answer alike.

An architecture is a small frozen value, so it is static under jit. Its methods
are about *one* autoencoder; a stack is trained by vmap over the arrays.

Shapes: N tokens, D_in width of the site read, D of the site written, F latents.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxsae.sae import linear, normalisation
from jaxsae.sae.architectures.alarm import Alarm
from jaxsae.sae.model import Sae

Params = Any  # an architecture's arrays; `Sae` for most


class UpdateTokens(struct.PyTreeNode):
  """The tokens of one update, scaled to unit mean squared norm.

  Attributes:
    x: what is read, [N, D_in].
    y: what is to be reconstructed, [N, D]; x itself but for transcoders.
    mask: [N], 1 for tokens that count and 0 for special ones.
  """

  x: jax.Array
  y: jax.Array
  mask: jax.Array


class UpdateInputs(struct.PyTreeNode):
  """What the sweep asks of one autoencoder in one update.

  Attributes:
    coefficient: λ, a scalar.
    target: L0*, a scalar; some architectures and penalties look at it.
    dead: bool [F], the latents to wake.
  """

  coefficient: jax.Array
  target: jax.Array
  dead: jax.Array


class UpdateStats(struct.PyTreeNode):
  """What one autoencoder did in one update, as sums over tokens that count.

  Attributes:
    tokens: n.
    loss: Σ loss.
    squared_error: Σ ‖y - ŷ‖².
    fired: [F], on how many tokens each latent was active; L0 is their sum over
      that of tokens.
    post_update_stats: what `post_update` needs to know of the update.
  """

  tokens: jax.Array
  loss: jax.Array
  squared_error: jax.Array
  fired: jax.Array
  post_update_stats: Any = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
  """One kind of autoencoder: how it starts, learns, and is read when done.

  Attributes:
    name: the value of `--sae.architecture` that selects it.
    axes: the axes of every array, by its name, one letter each: `D` for the
      width of a site, `F` for latents, which placements shard.
    uses_target: whether it trains towards L0* by itself, without a penalty.
    whole_target: whether L0* must be a whole number.
    prefixes: shares of the width, ascending, of which each must reconstruct by
      itself: the losses Σ‖y - ŷ_{0:m}‖² of all, and of the whole, add up
      (Matryoshka, arXiv 2503.17547). Empty: only the whole.
    transcodes: it reads one site and writes another.
    skip: a transcoder's x W_skip is part of its output.
  """

  name: ClassVar[str]
  axes: ClassVar[Mapping[str, str]] = {
    "w_enc": "DF",
    "b_enc": "F",
    "w_dec": "FD",
    "b_dec": "D",
    "threshold": "F",
    "w_skip": "DD",
  }
  uses_target: ClassVar[bool] = False
  whole_target: ClassVar[bool] = False

  prefixes: tuple[float, ...] = ()
  transcodes: bool = False
  skip: bool = False

  def init(self, key: jax.Array, d_in: int, d: int, width: int) -> Params:
    """The arrays before the first update."""
    raise NotImplementedError

  def loss(
    self, params: Params, tokens: UpdateTokens, inputs: UpdateInputs
  ) -> tuple[jax.Array, UpdateStats]:
    """What is minimised, and beside it what was seen."""
    raise NotImplementedError

  def gradients(
    self, params: Params, tokens: UpdateTokens, inputs: UpdateInputs
  ) -> tuple[Params, UpdateStats]:
    """The gradient of `loss`, and what was seen."""
    return jax.grad(self.loss, has_aux=True)(params, tokens, inputs)

  def project(self, grads: Params, params: Params) -> Params:
    """Gradients as the optimiser sees them: they only turn directions."""
    w_dec = normalisation.drop_parallel(grads.w_dec, params.w_dec)
    return grads.replace(w_dec=w_dec)

  def post_update(self, params: Params, stats: Any) -> Params:
    """What the optimiser made, brought back to where it must be."""
    del stats
    return params.replace(w_dec=normalisation.unit_rows(params.w_dec))

  def diagnose(
    self,
    before: Params,
    params: Params,
    tokens: UpdateTokens,
    inputs: UpdateInputs,
  ) -> dict[str, jax.Array]:
    """Scalars to log; asked for once a bucket, so they may be costly.

    Args:
      before: the arrays before the bucket.
      params: those after it.
      tokens: of its last update.
      inputs: of its last update.
    """
    del before, params, tokens, inputs
    return {}

  def alarms(self, width: int, target: float | None) -> tuple[Alarm, ...]:
    """Makes the alarms of one autoencoder; by default there are none.

    Args:
      width: F, its number of latents.
      target: its target L0*, or None.
    """
    del width, target
    return ()

  def fold(
    self,
    params: Params,
    scale_in: jax.Array | float,
    scale_out: jax.Array | float,
    *,
    target: float | None = None,
  ) -> Sae:
    """In training → for raw activations.

    In training the input is x / scale_in, an encoder sees it minus b_dec, and
    the target is y / scale_out (Gemma Scope, arXiv 2408.05147 appendix A).
    Directions stay as they are; latents and output grow by `scale_out`, which
    for an autoencoder is `scale_in`. `target` is the L0* it was trained with,
    which only TopK has to know.
    """
    del target
    return fold(params, scale_in, scale_out, centred=not self.transcodes)

  def encode(self, params: Params, x: jax.Array) -> jax.Array:
    """Scaled x [N, D_in] → pre-activations [N, F]."""
    return linear.encode(x, params.w_enc, params.b_enc, self.centre(params))

  def centre(self, params: Params) -> jax.Array:
    """What an encoder sees its input without, [D_in]: b_dec.

    A transcoder's b_dec is of another site, so its encoder sees the input.
    """
    d_in = params.w_enc.shape[0]
    return jnp.zeros(d_in) if self.transcodes else params.b_dec

  def errors(
    self, params: Params, latents: jax.Array, tokens: UpdateTokens
  ) -> list[jax.Array]:
    """ŷ - y, [N, D]: of each prefix of the latents, and last of the whole."""
    left = params.b_dec[None, :] - tokens.y
    if self.skip:
      left += tokens.x @ params.w_skip
    made = linear.decode(latents, params.w_dec, self._ends(latents.shape[-1]))
    return [left + part for part in made]

  def squared_errors(
    self, params: Params, latents: jax.Array, tokens: UpdateTokens
  ) -> list[jax.Array]:
    """‖ŷ - y‖² of each token, [N]: of each prefix, and last of the whole."""
    return [squared(error) for error in self.errors(params, latents, tokens)]

  def _ends(self, width: int) -> tuple[int, ...]:
    return (*(max(round(p * width), 1) for p in self.prefixes), width)

  def start(
    self, key: jax.Array, d_in: int, d: int, width: int
  ) -> dict[str, Any]:
    """Gemma Scope's start (§3.2): He-uniform unit directions, zero biases.

    The encoder is their transpose; a transcoder's are directions of its own.
    """
    key, other = jax.random.split(key)
    w_dec = normalisation.random_directions(key, width, d)
    w_enc = (
      normalisation.random_directions(other, width, d_in)
      if self.transcodes
      else w_dec
    )
    return {
      "w_enc": w_enc.T,
      "b_enc": jnp.zeros(width),
      "w_dec": w_dec,
      "b_dec": jnp.zeros(d),
      "w_skip": jnp.zeros((d_in, d)) if self.skip else None,
    }


def squared(error: jax.Array) -> jax.Array:
  """‖e‖² of each token: [N, D] → [N]."""
  return jnp.sum(jnp.square(error), axis=-1)


def update_stats(
  tokens: UpdateTokens,
  mean: jax.Array,
  squared: jax.Array,
  active: jax.Array,
  post_update_stats: Any = (),
) -> UpdateStats:
  """What was seen, without gradients.

  Args:
    tokens: the tokens.
    mean: the loss, a mean over tokens.
    squared: squared error of each token, [N].
    active: [N, F], 1 where a latent is.
    post_update_stats: for `post_update`.
  """
  count = jnp.sum(tokens.mask)
  seen = UpdateStats(
    tokens=count,
    loss=count * mean,
    squared_error=jnp.sum(tokens.mask * squared),
    fired=jnp.sum(tokens.mask[:, None] * active, axis=0),
    post_update_stats=post_update_stats,
  )
  return jax.lax.stop_gradient(seen)


def with_unit_directions(sae: Sae) -> Sae:
  """The same autoencoder; latents grow by what norms of directions were."""
  norms = jnp.linalg.norm(sae.w_dec, axis=-1)
  return sae.replace(
    w_enc=sae.w_enc * norms[None, :],
    b_enc=sae.b_enc * norms,
    # A direction of norm 0 has none to show; its latent is never active.
    w_dec=sae.w_dec / jnp.where(norms > 0, norms, 1.0)[:, None],
    threshold=sae.threshold * norms,
  )


def fold(
  sae: Sae,
  scale_in: jax.Array | float,
  scale_out: jax.Array | float,
  *,
  centred: bool = True,
) -> Sae:
  """`Architecture.fold` for arrays that already are a `Sae`'s.

  W_enc' = r W_enc, W_skip' = r W_skip for r = scale_out / scale_in,
  b_enc' = scale_out · b_enc, b_dec' = scale_out · b_dec, θ' = scale_out · θ,
  where `centred`, b_enc is b_enc - b_dec W_enc first.

  The scales may be those of several sites, [L]. Then columns of W_enc, W_dec,
  W_skip and b_dec have the scales of their sites, and latents the norms that
  directions had, so that these are of unit norm again.
  """
  b_enc = sae.b_enc - sae.b_dec @ sae.w_enc if centred else sae.b_enc
  if jnp.ndim(scale_in) or jnp.ndim(scale_out):
    return _fold_joined(sae.replace(b_enc=b_enc), scale_in, scale_out)
  ratio = scale_out / scale_in
  return sae.replace(
    w_enc=ratio * sae.w_enc,
    b_enc=scale_out * b_enc,
    b_dec=scale_out * sae.b_dec,
    threshold=scale_out * sae.threshold,
    w_skip=None if sae.w_skip is None else ratio * sae.w_skip,
  )


def _fold_joined(sae: Sae, scale_in: Any, scale_out: Any) -> Sae:
  """`fold` where several sites are read or written."""
  d_in, d = sae.w_enc.shape[0], sae.w_dec.shape[-1]
  into = normalisation.per_column(jnp.asarray(scale_in)[None], d_in)[0]
  out = normalisation.per_column(jnp.asarray(scale_out)[None], d)[0]
  skip = sae.w_skip
  folded = sae.replace(
    w_enc=sae.w_enc / into[:, None],
    w_dec=sae.w_dec * out[None, :],
    b_dec=sae.b_dec * out,
    w_skip=None if skip is None else skip * out[None, :] / into[:, None],
  )
  return with_unit_directions(folded)
