"""Controls whose encoder or whose directions are drawn at random.

Shapes: B batch, T time, C time of a chunk, D_in width of the sites read, D of
those written, F latents.
"""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from jaxsae import mesh as meshes
from jaxsae import pod
from jaxsae.evals.controls.text import Activations
from jaxsae.evals.steps import ChunkedSae
from jaxsae.lm import Taps
from jaxsae.sae import Sae

_HALVINGS = 16  # of the interval in which thresholds are sought
_HIGHEST = 8.0  # its upper end, in standard deviations
_RIDGE = 1e-3  # of the mean squared latent, for latents that hardly ever fire


def random_decoder(text: Activations, taps: Taps, sae: Sae) -> Sae:
  """Returns an autoencoder's own latents with random directions."""
  w_dec = _random_unit(sae.w_dec, axis=-1)
  return _scaled(text, taps, _alike(sae, w_dec=w_dec))


def random_encoder(text: Activations, taps: Taps, sae: Sae, l0: float) -> Sae:
  """Returns a control of the shape of an autoencoder, with random latents.

  Latents are the inner products with F random unit vectors, above thresholds
  that give the mean L0. A latent's direction is Σ f (y - ȳ) / Σ f², with f its
  activations: by least squares, if it were the only one.
  """
  w_enc = _random_unit(sae.w_enc, axis=0)
  b_enc = -text.mean_read(taps) @ w_enc
  made = _alike(sae, w_enc=w_enc, b_enc=b_enc, threshold=0 * b_enc)
  if made.k is None:
    made = _with_l0(text, taps, made, l0)
  both, squares = meshes.wait_for(
    _latent_sums(*_arguments(text, taps, made), text.mean_written(taps))
  )
  least = _RIDGE * jnp.mean(squares)
  w_dec = both / jnp.maximum(squares, least)[:, None]
  return _scaled(text, taps, _alike(made, w_dec=w_dec))


def _with_l0(text: Activations, taps: Taps, sae: Sae, l0: float) -> Sae:
  """Returns an autoencoder with thresholds that give it a mean L0.

  All are the same number of standard deviations above the mean pre-activation,
  which is 0; the number is found by halving an interval.
  """
  spread = meshes.wait_for(_spread(*_arguments(text, taps, sae)))
  low, high = 0.0, _HIGHEST
  for _ in range(_HALVINGS):
    middle = (low + high) / 2
    sae = _alike(sae, threshold=middle * spread)
    active = meshes.wait_for(_mean_active(*_arguments(text, taps, sae)))
    if float(pod.to_host(active)) > l0:
      low = middle
    else:
      high = middle
  return sae


def _scaled(text: Activations, taps: Taps, sae: Sae) -> Sae:
  """Fits the scale of all directions, and the bias, by least squares."""
  sae = _alike(sae, b_dec=0 * sae.b_dec)
  target = text.mean_written(taps)
  mean, squares, dot = meshes.wait_for(
    _made_sums(*_arguments(text, taps, sae), target)
  )
  scale = dot / jnp.maximum(squares, jnp.finfo(jnp.float32).tiny)
  b_dec = target - scale * mean
  return _alike(sae, w_dec=scale * sae.w_dec, b_dec=b_dec)


def _arguments(text: Activations, taps: Taps, sae: Sae):
  """Returns what the sums below are made of."""
  chunked = ChunkedSae(sae, text.lm.mesh)
  return chunked, text.mask, text.read(taps), text.written(taps)


def _alike(sae: Sae, **arrays: jax.Array) -> Sae:
  """Returns an autoencoder with other arrays where its own are, and no skip."""
  if sae.w_skip is not None:
    arrays["w_skip"] = jnp.zeros_like(sae.w_skip)
  placed = {
    name: _placed(x.astype(jnp.float32), getattr(sae, name))
    for name, x in arrays.items()
  }
  return sae.replace(**placed)


def _placed(x: jax.Array, like: jax.Array) -> jax.Array:
  """Puts an array where another one is, if that is on a mesh."""
  layout = _layout(like)
  return x if layout is None else jax.device_put(x, layout)


def _layout(x: jax.Array) -> NamedSharding | None:
  """Returns how an array lies on a mesh; None if it does not."""
  layout = getattr(x, "sharding", None)
  return layout if isinstance(layout, NamedSharding) else None


def _random_unit(like: jax.Array, axis: int) -> jax.Array:
  """Returns random vectors of norm 1 along an axis, the same ones each time."""

  def draw():
    x = jax.random.normal(jax.random.key(0), like.shape)
    return x / jnp.linalg.norm(x, axis=axis, keepdims=True)

  return jax.jit(draw, out_shardings=_layout(like))()


@jax.jit
def _spread(chunked: ChunkedSae, mask, reads, writes) -> jax.Array:
  """Returns the standard deviation over text of x W_enc + b_enc, [F]."""
  del writes

  def of_chunk(sae, mask, *sites):
    pre = _joined(sites) @ sae.w_enc + sae.b_enc[None, None, :]
    return (jnp.sum(jnp.where(mask[..., None], pre, 0) ** 2, axis=(0, 1)),)

  (squares,) = chunked.map(of_chunk, mask, *reads)
  return jnp.sqrt(jnp.sum(squares, axis=0) / jnp.maximum(jnp.sum(mask), 1))


@jax.jit
def _mean_active(chunked: ChunkedSae, mask, reads, writes) -> jax.Array:
  """Returns the mean number of active latents of a token."""
  del writes

  def of_chunk(sae, mask, *sites):
    return (jnp.sum((sae.encode(_joined(sites)) > 0) & mask[..., None]),)

  (active,) = chunked.map(of_chunk, mask, *reads)
  return jnp.sum(active) / jnp.maximum(jnp.sum(mask), 1)


@jax.jit
def _latent_sums(chunked: ChunkedSae, mask, reads, writes, target):
  """Returns Σ f (y - ȳ), [F, D], and Σ f², [F], over text.

  Args:
    chunked: the autoencoder, whose latents are f.
    mask: where text is, [B, T].
    reads: what is read.
    writes: y.
    target: ȳ, [D].
  """
  count = len(reads)

  def of_chunk(sae, mask, *sites):
    latents = sae.encode(_joined(sites[:count]))
    latents = jnp.where(mask[..., None], latents, 0)
    y = _joined(sites[count:]) - target[None, None, :]
    both = jnp.einsum("btf,btd->fd", latents, y)
    return both, jnp.sum(jnp.square(latents), axis=(0, 1))

  both, squares = chunked.map(of_chunk, mask, *reads, *writes)
  return jnp.sum(both, axis=0), jnp.sum(squares, axis=0)


@jax.jit
def _made_sums(chunked: ChunkedSae, mask, reads, writes, target):
  """Returns what a scale and bias of the reconstruction ŷ are fitted by.

  Args:
    chunked: the autoencoder that makes ŷ.
    mask: where text is, [B, T].
    reads: what is read.
    writes: y.
    target: ȳ, [D].

  Returns:
    the mean m of ŷ, [D]; Σ‖ŷ - m‖²; and Σ (ŷ - m)·(y - ȳ).
  """
  count = len(reads)

  def of_chunk(sae, mask, *sites):
    made = jnp.where(mask[..., None], sae(_joined(sites[:count])), 0)
    y = _joined(sites[count:]) - target[None, None, :]
    return (
      jnp.sum(made, axis=(0, 1)),
      jnp.sum(jnp.square(made)),
      jnp.sum(made * y),
    )

  found = chunked.map(of_chunk, mask, *reads, *writes)
  total, squares, dot = (jnp.sum(x, axis=0) for x in found)
  tokens = jnp.maximum(jnp.sum(mask), 1)
  mean = total / tokens
  # Σ (y - ȳ) is 0, so the mean of ŷ drops out of the inner products.
  return mean, squares - tokens * jnp.sum(jnp.square(mean)), dot


def _joined(sites) -> jax.Array:
  return jnp.concatenate(sites, axis=-1).astype(jnp.float32)
