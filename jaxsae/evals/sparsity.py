"""L0, FVU and density of autoencoders on text.

One pass over the text, with one forward pass of the language model for each
step, serves any number of autoencoders at any number of sites. Sums over a step
are taken on the device in float32; sums over steps on the host in float64. A
transcoder encodes x of the site that it reads, and reconstructs y of the site
that it writes; for an autoencoder, x and y are the same.

Shapes: B batch, T time, D_in width of the site read, D of the one written,
F latents.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae import mesh as meshes
from jaxsae import pod
from jaxsae.errors import UserError
from jaxsae.evals.keeper import SPARSITY, Figures, Keeper
from jaxsae.evals.steps import ChunkedSae, in_steps
from jaxsae.lm import Lm, Place, Site, Taps, capture
from jaxsae.lm.sharding import keep_rows_over_data
from jaxsae.sae import Sae
from jaxsae.token_batch import TokenBatch

# A squared deviation of this share of the squared mean is float32's rounding.
_ROUNDING = 1e-10


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
  keeper: Keeper | None = None,
) -> tuple[dict[str, Sparsity], dict[Site, Moments]]:
  """Measures autoencoders and the moments of their sites, in one pass.

  Args:
    lm: the language model.
    saes: name → site and autoencoder of raw activations, or the taps and a
      transcoder or crosscoder. Those of one shape share one compiled function.
    batches: the text, [B, T].
    keeper: keeps the sums so far, and may have some to go on with.

  Returns:
    The figures of each autoencoder, and the moments of each site that is
    written.

  Raises:
    UserError: the batches hold no text.
  """
  keeper = keeper or Keeper()
  placed = {name: (Taps.of(at), sae) for name, (at, sae) in saes.items()}
  sums = _Sums(lm, placed)
  sums.recall(keeper.recall(SPARSITY))
  if not sums.done:
    sites = sites_read(taps for taps, _ in placed.values())
    steps = in_steps(lm, batches, sites)
    for step in itertools.islice(steps, sums.steps, None):
      sums.add(*_measure_step(lm, placed, step))
      keeper.offer(SPARSITY, sums.figures, done=False)
    sums.done = True
    keeper.offer(SPARSITY, sums.figures, done=True)
  _check_text(sums.moments)
  results = {
    name: _sparsity(
      [sums.moments[site] for site in taps.writes],
      sums.errors[name],
      sums.fired[name],
    )
    for name, (taps, _) in placed.items()
  }
  return results, sums.moments


class _Sums:
  """Sums over the steps so far, on the host.

  Attributes:
    moments: those of each site that is written.
    errors: name → Σ‖y - ŷ‖².
    fired: name → the number of active tokens of each latent, int64 [F].
    steps: number of steps.
    done: whether there are no more.
  """

  def __init__(self, lm: Lm, placed: Mapping[str, tuple[Taps, Sae]]):
    written = sorted({s for taps, _ in placed.values() for s in taps.writes})
    self.moments = {s: _no_tokens(s.width(lm.config)) for s in written}
    self.errors = dict.fromkeys(placed, 0.0)
    self.fired = {
      name: np.zeros(sae.width, np.int64) for name, (_, sae) in placed.items()
    }
    self.steps, self.done = 0, False

  def add(self, moments, sums) -> None:
    """Adds those of another step."""
    for site, of_site in moments.items():
      self.moments[site] += _in_float64(*of_site)
    for name, (error, count) in sums.items():
      self.errors[name] += float(error)
      self.fired[name] += count
    self.steps += 1

  def figures(self) -> Figures:
    """Returns the sums as arrays, exactly."""
    found = {"steps": np.array([self.steps, self.done])}
    for site, m in self.moments.items():
      found[f"{site}/mean"] = m.mean
      found[f"{site}/rest"] = np.array([m.tokens, m.squared_deviation])
    for name, error in self.errors.items():
      found[f"{name}/error"] = np.array(error)
      found[f"{name}/fired"] = self.fired[name]
    return found

  def recall(self, found: Figures | None) -> None:
    """Goes on with the sums that `figures` returned; None: with none."""
    if found is None:
      return
    self.steps, self.done = int(found["steps"][0]), bool(found["steps"][1])
    for site in self.moments:
      tokens, deviation = found[f"{site}/rest"].tolist()
      mean = found[f"{site}/mean"]
      self.moments[site] = Moments(int(tokens), mean, deviation)
    for name in self.errors:
      self.errors[name] = float(found[f"{name}/error"])
      self.fired[name] = found[f"{name}/fired"]


def sites_read(every: Iterable[Taps]) -> list[Site]:
  """Returns the sites whose activations autoencoders need, in order."""
  return sorted({site for taps in every for site in taps.sites})


def _measure_step(lm, placed, step):
  """Returns the moments and the autoencoders' sums of a step, on the host."""
  every = tuple(sorted({taps for taps, _ in placed.values()}))
  activations, mask, moments = meshes.wait_for(capture_step(lm, every, step))
  sums = {}
  for name, (taps, sae) in placed.items():
    x, y = (
      [activations[s] for s in some] for some in (taps.reads, taps.writes)
    )
    sums[name] = meshes.wait_for(sum_step(ChunkedSae(sae, lm.mesh), x, y, mask))
  return pod.to_host((moments, sums))


@functools.partial(jax.jit, static_argnames="taps")
def capture_step(
  lm: Lm, taps: tuple[Taps, ...], step: TokenBatch
) -> tuple[dict[Site, jax.Array], jax.Array, dict[Site, tuple]]:
  """Returns activations [B, T, D], text mask [B, T] and moments, by site."""
  found = capture(lm, step.tokens, *sites_read(taps), **step.packing)
  activations = {s: keep_rows_over_data(x, lm.mesh) for s, x in found.items()}
  mask = lm.text_mask(step.tokens, step.segments) > 0
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
def sum_step(
  chunked: ChunkedSae,
  reads: Sequence[jax.Array],
  writes: Sequence[jax.Array],
  mask: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Returns Σ‖y - ŷ‖², and the number of active tokens of each latent, [F]."""
  count = len(reads)

  def of_chunk(sae, mask, *sites):
    joined = (jnp.concatenate(x, -1) for x in (sites[:count], sites[count:]))
    x, y = (x.astype(jnp.float32) for x in joined)
    # The compiler shares the latents of sae(x) and of encode.
    squared = jnp.sum(jnp.square(y - sae(x)), axis=-1)
    active = (sae.encode(x) > 0) & mask[..., None]
    fired = jnp.sum(active, axis=(0, 1), dtype=jnp.int32)
    return jnp.sum(jnp.where(mask, squared, 0.0)), fired

  squared, fired = chunked.map(of_chunk, mask, *reads, *writes)
  return jnp.sum(squared), jnp.sum(fired, axis=0, dtype=jnp.int32)


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
  squared_mean = sum(float(moments.mean @ moments.mean) for moments in written)
  rounding = _ROUNDING * tokens * squared_mean
  return Sparsity(
    tokens=tokens,
    l0=float(fired.sum() / tokens),
    fvu=squared_error / deviation if deviation > rounding else math.nan,
    density=fired / tokens,
  )
