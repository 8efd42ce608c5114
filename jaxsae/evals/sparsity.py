"""L0, FVU and density of autoencoders on text.

One pass over the batches, with one forward pass of the language model each,
serves any number of autoencoders at any number of sites. Sums over a batch are
taken on the device in float32; sums over batches on the host in float64. A
transcoder encodes x of the site that it reads, and reconstructs y of the site
that it writes; for an autoencoder, x and y are the same.

Shapes: B batch, T time, D_in width of the site read, D of the one written,
F latents.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae import mesh as meshes
from jaxsae import pod
from jaxsae.errors import UserError
from jaxsae.lm import Lm, Place, Site, Taps, capture
from jaxsae.sae import Sae
from jaxsae.token_batch import TokenBatch


@dataclasses.dataclass(frozen=True)
class Sparsity:
  """L0, FVU and density of one autoencoder.

  Attributes:
    tokens: n, the number of text tokens.
    l0: mean number of active latents per token.
    fvu: Σ‖y - ŷ‖² / Σ‖y - ȳ‖² with ȳ the mean over all n tokens; NaN if all
      activations are equal. Where several sites are written, of their raw
      activations; while they train, each site has its own scale.
    density: [F], share of the n tokens on which each latent is active.
  """

  tokens: int
  l0: float
  fvu: float
  density: np.ndarray

  @property
  def dead(self) -> float:
    """Share of latents that are active on none of the n tokens."""
    return float(np.mean(self.density == 0))


@dataclasses.dataclass(frozen=True)
class Moments:
  """Mean and squared deviation of the activations of one site.

  Attributes:
    tokens: n, the number of activations.
    mean: [D], x̄.
    squared_deviation: Σ‖x - x̄‖².
  """

  tokens: int
  mean: np.ndarray
  squared_deviation: float

  def __add__(self, other: "Moments") -> "Moments":
    """Returns the moments of both sets of tokens together.

    Uses the distance of the means (Chan, Golub and LeVeque 1979), because
    Σ‖x‖² - ‖Σx‖²/n cancels where the mean is large against the deviations.
    """
    tokens = self.tokens + other.tokens
    share = other.tokens / max(tokens, 1)
    distance = other.mean - self.mean
    return Moments(
      tokens=tokens,
      mean=self.mean + share * distance,
      squared_deviation=self.squared_deviation
      + other.squared_deviation
      + self.tokens * share * float(distance @ distance),
    )


def measure_sparsity(
  lm: Lm,
  saes: Mapping[str, tuple[Place, Sae]],
  batches: Iterable[TokenBatch],
) -> tuple[dict[str, Sparsity], dict[Site, Moments]]:
  """Measures autoencoders and the moments of their sites, in one pass.

  Args:
    lm: the language model.
    saes: name → site and autoencoder of raw activations, or the taps and a
      transcoder or crosscoder. Those of one shape share one compiled function.
    batches: the text, [B, T].

  Returns:
    The figures of each autoencoder, and the moments of each site that is
    written.

  Raises:
    UserError: the batches hold no text.
  """
  taps = {name: Taps.of(place) for name, (place, _) in saes.items()}
  written = {site for each in taps.values() for site in each.writes}
  moments = {s: _no_tokens(s.width(lm.config)) for s in written}
  errors = dict.fromkeys(saes, 0.0)
  fired = {n: np.zeros(sae.width, np.int64) for n, (_, sae) in saes.items()}
  for batch in batches:
    new, sums = _measure_batch(lm, saes, taps, batch)
    moments = {s: moments[s] + _in_float64(*new[s]) for s in written}
    for name, (error, count) in sums.items():
      errors[name] += float(error)
      fired[name] += count
  _check_text(moments)
  results = {
    name: _sparsity(
      [moments[site] for site in taps[name].writes], errors[name], fired[name]
    )
    for name in saes
  }
  return results, moments


def _measure_batch(lm, saes, taps, batch):
  """Returns the moments and the autoencoders' sums of a batch, on the host."""
  every = tuple(sorted(set(taps.values())))
  activations, mask, moments = _capture(lm, every, batch)
  sums = {}
  for name, (_, sae) in saes.items():
    x, y = taps[name].read(activations), taps[name].written(activations)
    sums[name] = meshes.wait_for(_sums(sae, x, y, mask))
  return pod.to_host((moments, sums))


@functools.partial(jax.jit, static_argnames="taps")
def _capture(lm, taps, batch):
  """Activations {site: [B, T, D]}, text mask [B, T] and moments by site."""
  sites = {site for each in taps for site in each.sites}
  activations = capture(lm, batch.tokens, *sorted(sites), **batch.packing)
  mask = lm.text_mask(batch.tokens, batch.segments) > 0
  written = {site for each in taps for site in each.writes}
  moments = {site: _moments(activations[site], mask) for site in written}
  return activations, mask, moments


def _moments(x, mask):
  """Returns n, the mean [D] and Σ‖x - mean‖² over text, in two passes."""
  mask_btd, x = mask[..., None], x.astype(jnp.float32)
  tokens = jnp.sum(mask, dtype=jnp.int32)
  total = jnp.sum(jnp.where(mask_btd, x, 0.0), axis=(0, 1))
  mean = total / jnp.maximum(tokens, 1)
  deviation = jnp.where(mask_btd, x - mean[None, None, :], 0.0)
  return tokens, mean, jnp.sum(jnp.square(deviation))


@jax.jit
def _sums(sae: Sae, x, y, mask):
  """Returns Σ‖y - ŷ‖², and the number of active tokens of each latent, [F]."""
  x, y = x.astype(jnp.float32), y.astype(jnp.float32)
  # The compiler shares the latents of sae(x) and of encode.
  squared = jnp.sum(jnp.square(y - sae(x)), axis=-1)
  active = (sae.encode(x) > 0) & mask[..., None]
  fired = jnp.sum(active, axis=(0, 1), dtype=jnp.int32)
  return jnp.sum(jnp.where(mask, squared, 0.0)), fired


def _no_tokens(d: int) -> Moments:
  return Moments(0, np.zeros(d), 0.0)


def _in_float64(tokens, mean, squared_deviation) -> Moments:
  return Moments(int(tokens), mean.astype(np.float64), float(squared_deviation))


def _check_text(moments: Mapping[Site, Moments]) -> None:
  if any(site.tokens == 0 for site in moments.values()):
    raise UserError(
      "The held-out batches hold no text to evaluate on; hold out a larger"
      " share of the documents, or read more rows."
    )


def _sparsity(
  written: Sequence[Moments], squared_error: float, fired: np.ndarray
) -> Sparsity:
  """Forms the figures, given the moments of the sites that are written."""
  tokens = written[0].tokens
  deviation = sum(moments.squared_deviation for moments in written)
  return Sparsity(
    tokens=tokens,
    l0=float(fired.sum() / tokens),
    fvu=squared_error / deviation if deviation > 0 else math.nan,
    density=fired / tokens,
  )
