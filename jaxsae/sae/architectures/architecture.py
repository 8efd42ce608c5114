"""The base of architectures: what each defines, and what most of them share.

An architecture is a small frozen value, so it is static under jit. Its methods
are about *one* autoencoder; a stack trains by vmap over the arrays.

Shapes: N tokens, D_in width of the site read, D of the site written, F latents.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxsae.errors import UserError
from jaxsae.sae import linear, normalisation
from jaxsae.sae.architectures.alarm import Alarm
from jaxsae.sae.interleaving import OWN, Interleaving
from jaxsae.sae.model import Sae

Params = Any  # an architecture's arrays; `Sae` for most


class UpdateTokens(struct.PyTreeNode):
  """The tokens of one update, scaled to unit mean squared norm.

  Attributes:
    x: the activations that are read, [N, D_in].
    y: the activations to reconstruct, [N, D]; x itself except in transcoders.
    mask: [N], 1 for tokens that count and 0 for special tokens.
  """

  x: jax.Array
  y: jax.Array
  mask: jax.Array


class UpdateInputs(struct.PyTreeNode):
  """The settings of one autoencoder in one update.

  Attributes:
    coefficient: λ, a scalar.
    target: L0*, a scalar; some architectures and penalties use it.
    dead: bool [F], the latents to revive.
  """

  coefficient: jax.Array
  target: jax.Array
  dead: jax.Array


class UpdateStats(struct.PyTreeNode):
  """The figures of one autoencoder in one update: sums over tokens that count.

  Attributes:
    tokens: number of tokens n.
    loss: Σ loss.
    squared_error: Σ ‖y - ŷ‖².
    fired: [F], the number of tokens on which each latent was active; L0 is the
      sum of these over n.
    post_update_stats: the figures that `post_update` needs.
  """

  tokens: jax.Array
  loss: jax.Array
  squared_error: jax.Array
  fired: jax.Array
  post_update_stats: Any = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
  """One architecture: how an autoencoder starts, learns and is published.

  A new one subclasses it in a file of its own and is listed in `registry.py`.
  Its settings are its fields: those that have the name of a setting of the
  sweep (`prefixes`, `transcodes`, `skip`, `kernel`, `penalties`, `threshold`)
  are filled from the configuration; others keep their defaults.

  Attributes:
    name: the value of `--sae.architecture` that selects it.
    axes: the axes of every array, by its name, one letter each: `D` for the
      width of a site, `F` for latents, which placements shard.
    uses_target: whether it trains towards L0* by itself, without a penalty.
    whole_target: whether L0* must be a whole number.
    wake_after: tokens without firing after which latents are revived, as it was
      published; None: never.
    prefixes: shares of the width, ascending, each of which must reconstruct by
      itself: the losses Σ‖y - ŷ_{0:m}‖² of all prefixes and of the whole width
      add up (Matryoshka, arXiv 2503.17547). Empty: only the whole width.
    transcodes: whether it reads one site and writes another.
    skip: whether a transcoder adds x W_skip to its output.
    order: the order of latents in the arrays of a loss. The trainer changes it
      where latents are split over devices and there are prefixes; `errors` and
      what is built on it allow for that, and between buckets the order is that
      of the latents themselves.
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
  wake_after: ClassVar[int | None] = None

  prefixes: tuple[float, ...] = ()
  transcodes: bool = False
  skip: bool = False
  order: Interleaving = OWN

  def init(self, key: jax.Array, d_in: int, d: int, width: int) -> Params:
    """Makes the arrays before the first update.

    Args:
      key: the random key.
      d_in: D_in, the width of the site read.
      d: D, the width of the site written.
      width: F, the number of latents.
    """
    raise NotImplementedError

  def loss(
    self, params: Params, tokens: UpdateTokens, inputs: UpdateInputs
  ) -> tuple[jax.Array, UpdateStats]:
    """Returns the loss to minimise, a scalar, and the figures of the update."""
    raise NotImplementedError

  def gradients(
    self, params: Params, tokens: UpdateTokens, inputs: UpdateInputs
  ) -> tuple[Params, UpdateStats]:
    """Returns the gradient of `loss`, and the figures of the update."""
    return jax.grad(self.loss, has_aux=True)(params, tokens, inputs)

  def project(self, grads: Params, params: Params) -> Params:
    """Prepares gradients for the optimiser: they only rotate directions."""
    w_dec = normalisation.drop_parallel(grads.w_dec, params.w_dec)
    return grads.replace(w_dec=w_dec)

  def post_update(self, params: Params, stats: Any) -> Params:
    """Corrects arrays after the optimiser: directions have unit norm.

    Args:
      params: the arrays that the optimiser returned.
      stats: `UpdateStats.post_update_stats` of the update.
    """
    del stats
    return params.replace(w_dec=normalisation.unit_rows(params.w_dec))

  def diagnose(
    self,
    before: Params,
    params: Params,
    tokens: UpdateTokens,
    inputs: UpdateInputs,
  ) -> dict[str, jax.Array]:
    """Returns scalars to log, by name; by default there are none.

    It is called once a bucket, so it may take as long as an update.

    Args:
      before: the arrays before the bucket.
      params: the arrays after the bucket.
      tokens: the tokens of the bucket's last update.
      inputs: the settings in the bucket's last update.
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
    """Folds scales into the arrays: the result reads raw activations.

    In training the input is x / scale_in, the encoder reads it minus b_dec, and
    the target is y / scale_out (Gemma Scope, arXiv 2408.05147 appendix A).
    Directions stay as they are; latents and outputs grow by `scale_out`.

    Args:
      params: the arrays in training.
      scale_in: the scale of the activations read.
      scale_out: the scale of those reconstructed; `scale_in` if they are one.
      target: the L0* that it was trained with; only TopK needs it.
    """
    sae = self.to_sae(params, target)
    return fold(sae, scale_in, scale_out, centred=not self.transcodes)

  def to_sae(self, params: Params, target: float | None) -> Sae:
    """Converts the arrays in training to a `Sae` of scaled activations.

    By default they are one.

    Args:
      params: the arrays in training.
      target: the L0* that it was trained with, or None.
    """
    del target
    return params

  def unfold(
    self,
    sae: Sae,
    scale_in: jax.Array | float,
    scale_out: jax.Array | float,
  ) -> Params:
    """Makes the arrays in training that fold to an autoencoder.

    What they fold to has directions of unit norm, and reconstructs the same.

    Args:
      sae: an autoencoder of raw activations.
      scale_in: the scale of the activations read.
      scale_out: the scale of those reconstructed; `scale_in` if they are one.

    Raises:
      UserError: this architecture cannot do what the autoencoder does.
    """
    centred = not self.transcodes
    return self.from_sae(unfold(sae, scale_in, scale_out, centred=centred))

  def from_sae(self, sae: Sae) -> Params:
    """Converts a `Sae` of scaled activations to the arrays in training.

    By default they are one.

    Raises:
      UserError: this architecture cannot do what it does.
    """
    if sae.k is not None:
      raise UserError(
        f"A TopK autoencoder (k={sae.k}) cannot start {self.name}; only topk."
      )
    return sae

  def encode(self, params: Params, x: jax.Array) -> jax.Array:
    """Encodes scaled activations [N, D_in] as pre-activations [N, F]."""
    return linear.encode(x, params.w_enc, params.b_enc, self.centre(params))

  def centre(self, params: Params) -> jax.Array:
    """Returns what the encoder subtracts from its input: b_dec, [D_in].

    Zeros for a transcoder, whose b_dec belongs to another site.
    """
    d_in = params.w_enc.shape[0]
    return jnp.zeros(d_in) if self.transcodes else params.b_dec

  def errors(
    self, params: Params, latents: jax.Array, tokens: UpdateTokens
  ) -> list[jax.Array]:
    """Returns ŷ - y, [N, D], for each prefix of latents and then for all."""
    left = params.b_dec[None, :] - tokens.y
    if self.skip:
      left += tokens.x @ params.w_skip
    ends = self.ends(latents.shape[-1])
    made = linear.decode(latents, params.w_dec, ends, self.order)
    return [left + part for part in made]

  def squared_errors(
    self, params: Params, latents: jax.Array, tokens: UpdateTokens
  ) -> list[jax.Array]:
    """Returns ‖ŷ - y‖², [N], for each prefix of latents and then for all."""
    return [squared(error) for error in self.errors(params, latents, tokens)]

  def ends(self, width: int) -> tuple[int, ...]:
    """Returns the number of latents of each prefix, and then the width."""
    return (*(max(round(p * width), 1) for p in self.prefixes), width)

  def summed_per_token(self, d: int, revives: bool) -> int:
    """Returns how many numbers a loss sums over all latents for each token.

    Where latents are split over devices, these sums are what devices send one
    another. By default they are the reconstructions from each prefix.

    Args:
      d: D, the width of the site written.
      revives: whether there may be dead latents to revive.
    """
    del revives
    return d * (len(self.prefixes) + 1)

  def start(
    self, key: jax.Array, d_in: int, d: int, width: int
  ) -> dict[str, Any]:
    """Makes initial arrays as Gemma Scope does (§3.2), by name.

    Directions are He-uniform, with unit norm, and biases zero. The encoder is
    the transpose of the decoder; a transcoder's is drawn separately.
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
  """Returns ‖e‖² of each token: [N, D] → [N]."""
  return jnp.sum(jnp.square(error), axis=-1)


def update_stats(
  tokens: UpdateTokens,
  mean: jax.Array,
  squared: jax.Array,
  active: jax.Array,
  post_update_stats: Any = (),
) -> UpdateStats:
  """Sums the figures of an update, without gradients.

  Args:
    tokens: the tokens of the update.
    mean: the loss, a mean over tokens.
    squared: the squared error of each token, [N].
    active: [N, F], 1 where a latent is active.
    post_update_stats: the figures that `post_update` needs.
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
  """Normalises directions, and scales latents by their former norms."""
  norms = jnp.linalg.norm(sae.w_dec, axis=-1)
  return sae.replace(
    w_enc=sae.w_enc * norms[None, :],
    b_enc=sae.b_enc * norms,
    # A direction of norm 0 stays 0; its latent is never active.
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
  """Folds scales into a `Sae`, as `Architecture.fold` does.

  W_enc' = r W_enc, W_skip' = r W_skip for r = scale_out / scale_in,
  b_enc' = scale_out · b_enc, b_dec' = scale_out · b_dec, θ' = scale_out · θ.
  If `centred`, b_enc becomes b_enc - b_dec W_enc first.

  The scales may be those of several sites, [L]. Then columns of W_enc, W_dec,
  W_skip and b_dec have the scales of their sites, and latents the norms that
  directions had, so that these are of unit norm again. The directions of a TopK
  that writes several sites keep their norms: with unit norms, other latents
  would be the k largest.
  """
  b_enc = sae.b_enc - sae.b_dec @ sae.w_enc if centred else sae.b_enc
  if jnp.ndim(scale_in) or jnp.ndim(scale_out):
    joined = _fold_joined(sae.replace(b_enc=b_enc), scale_in, scale_out)
    keeps_norms = sae.k is not None and jnp.ndim(scale_out)
    return joined if keeps_norms else with_unit_directions(joined)
  ratio = scale_out / scale_in
  return sae.replace(
    w_enc=ratio * sae.w_enc,
    b_enc=scale_out * b_enc,
    b_dec=scale_out * sae.b_dec,
    threshold=scale_out * sae.threshold,
    w_skip=None if sae.w_skip is None else ratio * sae.w_skip,
  )


def _fold_joined(sae: Sae, scale_in: Any, scale_out: Any) -> Sae:
  """`fold` where several sites are read or written; norms are left."""
  d_in, d = sae.w_enc.shape[0], sae.w_dec.shape[-1]
  into = normalisation.per_column(jnp.asarray(scale_in)[None], d_in)[0]
  out = normalisation.per_column(jnp.asarray(scale_out)[None], d)[0]
  skip = sae.w_skip
  return sae.replace(
    w_enc=sae.w_enc / into[:, None],
    w_dec=sae.w_dec * out[None, :],
    b_dec=sae.b_dec * out,
    w_skip=None if skip is None else skip * out[None, :] / into[:, None],
  )


def unfold(
  sae: Sae,
  scale_in: jax.Array | float,
  scale_out: jax.Array | float,
  *,
  centred: bool = True,
) -> Sae:
  """Undoes `fold`, as `Architecture.unfold` does; directions get unit norm.

  Raises:
    UserError: a direction has norm 0; or norms differ in a TopK, where other
      latents would be the k largest if they did not.
  """
  d_in, d = sae.w_enc.shape[0], sae.w_dec.shape[-1]
  into = normalisation.per_column(jnp.asarray(scale_in)[None], d_in)[0]
  out = normalisation.per_column(jnp.asarray(scale_out)[None], d)[0]
  skip = sae.w_skip
  scaled = sae.replace(
    w_enc=sae.w_enc * into[:, None],
    w_dec=sae.w_dec / out[None, :],
    b_dec=sae.b_dec / out,
    w_skip=None if skip is None else skip * into[:, None] / out[None, :],
  )
  _check_norms(scaled)
  unit = with_unit_directions(scaled)
  shift = unit.b_dec @ unit.w_enc if centred else 0.0
  return unit.replace(b_enc=unit.b_enc + shift)


def _check_norms(sae: Sae) -> None:
  """Raises UserError unless directions can be trained with unit norm."""
  norms = jnp.linalg.norm(sae.w_dec, axis=-1)
  least, most = float(jnp.min(norms)), float(jnp.max(norms))
  if least == 0:
    raise UserError(
      f"Latent {int(jnp.argmin(norms))} has a direction of norm 0, which cannot"
      " be trained; start from another autoencoder."
    )
  if sae.k is not None and most > 1.01 * least:
    raise UserError(
      "The directions of a TopK autoencoder that is trained have one norm, and"
      f" these have norms from {least:.3g} to {most:.3g} times the scale; start"
      " from another autoencoder."
    )
