"""How sparse autoencoders are, and how much of their site they explain.

One pass over the batches, and one run of the language model a batch, serve any
number of autoencoders at any number of sites. Sums over a batch are taken on
the device in float32; batches are added up on the host in float64.

Shapes: B batch, T time, D site width, F latents.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae.errors import UserError
from jaxsae.lm import Lm, Site, capture
from jaxsae.sae import Sae


@dataclasses.dataclass(frozen=True)
class Sparsity:
  """What one autoencoder does with the activations it reads.

  Attributes:
    tokens: n, the text tokens it was measured on.
    l0: mean active latents of a token.
    fvu: Σ‖x - x̂‖² / Σ‖x - x̄‖² with x̄ the mean over all n tokens; NaN if all
      activations are the same.
    density: [F], the share of the n tokens on which each latent is active.
  """

  tokens: int
  l0: float
  fvu: float
  density: np.ndarray

  @property
  def dead(self) -> float:
    """Share of latents that were active on none of the n tokens."""
    return float(np.mean(self.density == 0))


@dataclasses.dataclass(frozen=True)
class Moments:
  """Where the activations of one site lie.

  Attributes:
    tokens: n, how many they are.
    mean: [D], x̄.
    spread: Σ‖x - x̄‖².
  """

  tokens: int
  mean: np.ndarray
  spread: float

  def __add__(self, other: "Moments") -> "Moments":
    """Of both sets of tokens together.

    Two sets are joined by their distance (Chan, Golub and LeVeque 1979),
    because Σ‖x‖² - ‖Σx‖²/n cancels where the mean outweighs the spread.
    """
    tokens = self.tokens + other.tokens
    share = other.tokens / max(tokens, 1)
    apart = other.mean - self.mean
    return Moments(
      tokens=tokens,
      mean=self.mean + share * apart,
      spread=self.spread
      + other.spread
      + self.tokens * share * float(apart @ apart),
    )


def measure_sparsity(
  lm: Lm,
  saes: Mapping[str, tuple[Site, Sae]],
  batches: Iterable[Mapping],
) -> tuple[dict[str, Sparsity], dict[Site, Moments]]:
  """Reads every batch once.

  Args:
    lm: the language model.
    saes: name → site and autoencoder of raw activations. Those of one shape
      share one compiled function.
    batches: `tokens`, `segments` and `positions`, int32 [B, T].

  Returns:
    What each autoencoder does, and where the activations of each site lie.

  Raises:
    UserError: the batches hold no text.
  """
  sites = tuple(sorted({site for site, _ in saes.values()}))
  moments = {s: _nothing(s.width(lm.config)) for s in sites}
  errors = dict.fromkeys(saes, 0.0)
  fired = {n: np.zeros(sae.width, np.int64) for n, (_, sae) in saes.items()}
  for batch in batches:
    seen, tallies = _read(lm, saes, sites, batch)
    moments = {s: moments[s] + _in_float64(*seen[s]) for s in sites}
    for name, (error, count) in tallies.items():
      errors[name] += float(error)
      fired[name] += count
  _check_text(moments)
  results = {
    name: _sparsity(moments[site], errors[name], fired[name])
    for name, (site, _) in saes.items()
  }
  return results, moments


def _read(lm, saes, sites, batch):
  """Everything that one batch says, on the host."""
  activations, mask, seen = _capture(lm, sites, batch)
  tallies = {
    name: _tally(sae, activations[site], mask)
    for name, (site, sae) in saes.items()
  }
  return jax.device_get((seen, tallies))


@functools.partial(jax.jit, static_argnames="sites")
def _capture(lm, sites, batch):
  """{site: [B, T, D]}, the mask [B, T] of text, and moments of each site."""
  packing = {k: batch[k] for k in ("segments", "positions")}
  activations = capture(lm, batch["tokens"], *sites, **packing)
  mask = lm.text_mask(batch["tokens"], batch["segments"]) > 0
  moments = {site: _moments(x, mask) for site, x in activations.items()}
  return activations, mask, moments


def _moments(x, mask):
  """n, the mean [D] and Σ‖x - mean‖² of text, in two passes over x."""
  mask_btd, x = mask[..., None], x.astype(jnp.float32)
  tokens = jnp.sum(mask, dtype=jnp.int32)
  total = jnp.sum(jnp.where(mask_btd, x, 0.0), axis=(0, 1))
  mean = total / jnp.maximum(tokens, 1)
  apart = jnp.where(mask_btd, x - mean[None, None, :], 0.0)
  return tokens, mean, jnp.sum(jnp.square(apart))


@jax.jit
def _tally(sae: Sae, x, mask):
  """Σ‖x - x̂‖², and on how many text tokens each latent is active, [F]."""
  x = x.astype(jnp.float32)
  latents = sae.encode(x)
  squared = jnp.sum(jnp.square(x - sae.decode(latents)), axis=-1)
  active = (latents > 0) & mask[..., None]
  fired = jnp.sum(active, axis=(0, 1), dtype=jnp.int32)
  return jnp.sum(jnp.where(mask, squared, 0.0)), fired


def _nothing(d: int) -> Moments:
  return Moments(0, np.zeros(d), 0.0)


def _in_float64(tokens, mean, spread) -> Moments:
  return Moments(int(tokens), mean.astype(np.float64), float(spread))


def _check_text(moments: Mapping[Site, Moments]) -> None:
  if any(seen.tokens == 0 for seen in moments.values()):
    raise UserError(
      "The held-out batches hold no text to evaluate on; hold out a larger"
      " share of the documents, or read more rows."
    )


def _sparsity(seen: Moments, squared_error: float, fired) -> Sparsity:
  return Sparsity(
    tokens=seen.tokens,
    l0=float(fired.sum() / seen.tokens),
    fvu=squared_error / seen.spread if seen.spread > 0 else math.nan,
    density=fired / seen.tokens,
  )
