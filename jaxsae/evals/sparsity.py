"""L0, FVU and density of autoencoders on text.

One pass over the text, with one forward pass of the language model for each
step, serves any number of autoencoders at any number of sites. The device makes
the figures of each token in float32; the host sums them in float64, by
document. A transcoder encodes x of the sites that it reads, and reconstructs y
of those that it writes; for an autoencoder, x and y are the same.

Shapes: B batch, T time, D_in width of the sites read, D of those written,
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
from jaxsae.evals.intervals import Ratio
from jaxsae.evals.keeper import SPARSITY, Figures, Keeper
from jaxsae.evals.steps import ChunkedSae, Step, in_steps, over_time
from jaxsae.evals.tally import Places, Tally
from jaxsae.lm import Lm, Place, Site, Taps, capture
from jaxsae.lm.sharding import keep_rows_over_data
from jaxsae.sae import Sae
from jaxsae.token_batch import TokenBatch

# A squared deviation of this share of the squared mean is float32's rounding.
_ROUNDING = 1e-10


@dataclasses.dataclass(frozen=True)
class Sparsity:
  """What one pass over text tells of one autoencoder.

  Attributes:
    tokens: n, the number of text tokens.
    documents: the number of documents that they are of.
    l0: mean number of active latents of a token.
    l1: mean sum of a token's latents.
    fvu: Σ‖y - ŷ‖² / Σ‖y - ȳ‖² with ȳ the mean over all n tokens; NaN if all
      activations are equal. Where several sites are written, of their raw
      activations; while they train, each site has its own scale.
    mse: mean of ‖y - ŷ‖².
    normalised_mse: Σ‖y - ŷ‖² / Σ‖y‖².
    cosine: mean cosine of y and ŷ.
    norm_ratio: mean of ‖ŷ‖ / ‖y‖.
    reconstruction_bias: Σ‖ŷ‖² / Σ y·ŷ; below 1 where ŷ is too short.
    fvu_per_token: mean of ‖y - ŷ‖² / ‖y - ȳ‖², ȳ being a step's mean.
    fvu_of_variances: as `fvu`, with the mean of y - ŷ taken from it.
    gamma: ‖x̄‖ / √(Σ‖x - x̄‖² / n) of what is read: how far its mean is from 0.
    density: [F], share of the tokens on which a latent is active.
    ratios: numerators and denominators by document, of l0, fvu, cosine and
      norm_ratio.
  """

  tokens: int
  documents: int
  l0: float
  l1: float
  fvu: float
  mse: float
  normalised_mse: float
  cosine: float
  norm_ratio: float
  reconstruction_bias: float
  fvu_per_token: float
  fvu_of_variances: float
  gamma: float
  density: np.ndarray
  ratios: Mapping[str, Ratio]

  @property
  def dead(self) -> float:
    """The share of latents that are active on none of the tokens."""
    return float((self.density == 0).mean())


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
    The figures of each autoencoder, and the moments of each site.

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
      sums.add(step.documents, *_measure_step(lm, placed, step))
      keeper.offer(SPARSITY, sums.figures, done=False)
    sums.done = True
    keeper.offer(SPARSITY, sums.figures, done=True)
  _check_text(sums.moments)
  figures = {name: sums.of(name, taps) for name, (taps, _) in placed.items()}
  return figures, sums.moments


# The figures of each token that the device makes, y2 being ‖y‖² and made2 ‖ŷ‖²;
# and those that the host makes of them.
_BY_TOKEN = ("error", "active", "l1", "y2", "made2", "dot")
_DERIVED = ("cosine", "norm_ratio", "error_per_token")


class _Sums:
  """Sums over the steps so far, on the host.

  Attributes:
    moments: those of each site.
    by_document: Σ over the tokens of each document of 1, of the squared
      deviation at each site, and of each autoencoder's figures.
    fired: name → the number of active tokens of each latent, int64 [F].
    error: name → Σ (y - ŷ), [D].
    steps: number of steps.
    done: whether there are no more.
  """

  def __init__(self, lm: Lm, placed: Mapping[str, tuple[Taps, Sae]]):
    sites = sites_read(taps for taps, _ in placed.values())
    self.moments = {s: _no_tokens(s.width(lm.config)) for s in sites}
    self.by_document = Tally()
    self.fired = {
      name: np.zeros(sae.width, np.int64) for name, (_, sae) in placed.items()
    }
    self.error = {
      name: np.zeros(sae.b_dec.shape) for name, (_, sae) in placed.items()
    }
    self._taps = {name: taps for name, (taps, _) in placed.items()}
    self.steps, self.done = 0, False

  def add(
    self, documents: np.ndarray, mask, moments, deviations, found
  ) -> None:
    """Adds those of another step; the arguments are as `_measure_step` says."""
    places = self.by_document.places(documents, mask)
    self.by_document.add(places, {"tokens": mask})
    for site, of_site in moments.items():
      tokens, mean = of_site
      self.moments[site] += _of_step(tokens, mean, deviations[site][mask])
      self.by_document.add(places, {f"site {site}": deviations[site]})
    for name, (by_token, fired, error) in found.items():
      written = [deviations[site] for site in self._taps[name].writes]
      self._add_one(places, name, by_token, sum(written))
      self.fired[name] += fired
      self.error[name] += error
    self.steps += 1

  def _add_one(self, places: Places, name: str, by_token, deviation) -> None:
    """Adds the figures of one autoencoder's tokens."""
    found = {k: x.astype(np.float64) for k, x in by_token.items()}
    norms = np.sqrt(found["y2"] * found["made2"])
    # The cosine of a reconstruction of zeros counts as 0, as in torch.
    found["cosine"] = np.nan_to_num(_ratio(found["dot"], norms))
    found["norm_ratio"] = np.sqrt(_ratio(found["made2"], found["y2"]))
    found["error_per_token"] = _ratio(found["error"], deviation)
    named = {f"sae {name}/{figure}": x for figure, x in found.items()}
    self.by_document.add(places, named)

  def of(self, name: str, taps: Taps) -> Sparsity:
    """Forms the figures of one autoencoder."""
    tally = self.by_document
    by_document = {
      figure: tally[f"sae {name}/{figure}"] for figure in _BY_TOKEN + _DERIVED
    }
    deviations = np.array([tally[f"site {site}"] for site in taps.writes])
    return _sparsity(
      [self.moments[site] for site in taps.reads],
      [self.moments[site] for site in taps.writes],
      {
        "tokens": tally["tokens"],
        "deviation": deviations.sum(axis=0),
        **by_document,
      },
      self.fired[name],
      self.error[name],
    )

  def figures(self) -> Figures:
    """Returns the sums as arrays, exactly."""
    found = {"steps": np.array([self.steps, self.done])}
    found |= self.by_document.figures("by document/")
    for site, m in self.moments.items():
      found[f"{site}/mean"] = m.mean
      found[f"{site}/rest"] = np.array([m.tokens, m.squared_deviation])
    for name, fired in self.fired.items():
      found[f"{name}/fired"] = fired
      found[f"{name}/error"] = self.error[name]
    return found

  def recall(self, found: Figures | None) -> None:
    """Goes on with the sums that `figures` returned; None: with none."""
    if found is None:
      return
    self.steps, self.done = int(found["steps"][0]), bool(found["steps"][1])
    self.by_document.recall(found, "by document/")
    for site in self.moments:
      tokens, deviation = found[f"{site}/rest"].tolist()
      mean = found[f"{site}/mean"]
      self.moments[site] = Moments(int(tokens), mean, deviation)
    for name in self.fired:
      self.fired[name] = found[f"{name}/fired"]
      self.error[name] = found[f"{name}/error"]


def sites_read(every: Iterable[Taps]) -> list[Site]:
  """Returns the sites whose activations autoencoders need, in order."""
  return sorted({site for taps in every for site in taps.sites})


def _measure_step(lm, placed, step: Step):
  """Returns what a step tells, on the host.

  That is the text mask [B, T]; each site's n and mean, and its squared
  deviations [B, T]; and of each autoencoder, what `sum_step` returns.
  """
  every = tuple(sorted({taps for taps, _ in placed.values()}))
  activations, mask, *of_sites = meshes.wait_for(
    capture_step(lm, every, step.text)
  )
  found = {}
  for name, (taps, sae) in placed.items():
    x, y = (
      [activations[s] for s in some] for some in (taps.reads, taps.writes)
    )
    one = sum_step(ChunkedSae(sae, lm.mesh), x, y, mask)
    found[name] = meshes.wait_for(one)
  return pod.to_host((mask, *of_sites, found))


@functools.partial(jax.jit, static_argnames="taps")
def capture_step(lm: Lm, taps: tuple[Taps, ...], step: TokenBatch) -> tuple:
  """Returns the activations of a step, and what is known of each site.

  Returns:
    site → activations [B, T, D]; the text mask [B, T]; site → n and the mean of
    its text [D]; and site → ‖x - mean‖² of each token, [B, T].
  """
  found = capture(lm, step.tokens, *sites_read(taps), **step.packing)
  activations = {s: keep_rows_over_data(x, lm.mesh) for s, x in found.items()}
  mask = lm.text_mask(step.tokens, step.segments) > 0
  moments, deviations = {}, {}
  for site, x in activations.items():
    moments[site], deviations[site] = _moments(x, mask)
  return activations, mask, moments, deviations


def _moments(x: jax.Array, mask: jax.Array):
  """Returns n and the mean [D] of text, and ‖x - mean‖² of tokens [B, T]."""
  x = x.astype(jnp.float32)
  tokens = jnp.sum(mask, dtype=jnp.int32)
  total = jnp.sum(jnp.where(mask[..., None], x, 0.0), axis=(0, 1))
  mean = total / jnp.maximum(tokens, 1)
  return (tokens, mean), jnp.sum(jnp.square(x - mean[None, None, :]), axis=-1)


@jax.jit
def sum_step(
  chunked: ChunkedSae,
  reads: Sequence[jax.Array],
  writes: Sequence[jax.Array],
  mask: jax.Array,
) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
  """Measures one autoencoder on a step.

  Returns:
    the figures of each token, [B, T] by name; the number of active tokens of
    each latent, [F]; and Σ (y - ŷ) over text, [D].
  """
  count = len(reads)

  def of_chunk(sae, mask, *sites):
    joined = (jnp.concatenate(x, -1) for x in (sites[:count], sites[count:]))
    x, y = (x.astype(jnp.float32) for x in joined)
    # The compiler shares the latents of sae(x) and of encode.
    made, latents = sae(x), sae.encode(x)
    text = mask[..., None]
    fired = jnp.sum((latents > 0) & text, axis=(0, 1), dtype=jnp.int32)
    error = jnp.sum(jnp.where(text, y - made, 0.0), axis=(0, 1))
    return _of_tokens(y, made, latents), fired, error

  by_token, fired, error = chunked.map(of_chunk, mask, *reads, *writes)
  time = mask.shape[1]
  return (
    {name: over_time(x, time) for name, x in by_token.items()},
    jnp.sum(fired, axis=0, dtype=jnp.int32),
    jnp.sum(error, axis=0),
  )


def _of_tokens(y, made, latents) -> dict[str, jax.Array]:
  """Returns the figures in `_BY_TOKEN`, [B, C] each."""
  total = functools.partial(jnp.sum, axis=-1)
  return {
    "error": total(jnp.square(y - made)),
    "active": total(latents > 0, dtype=jnp.int32),
    "l1": total(latents),
    "y2": total(jnp.square(y)),
    "made2": total(jnp.square(made)),
    "dot": total(y * made),
  }


def _no_tokens(d: int) -> Moments:
  return Moments(0, np.zeros(d), 0.0)


def _of_step(tokens, mean: np.ndarray, deviations: np.ndarray) -> Moments:
  squared = float(deviations.sum(dtype=np.float64))
  return Moments(int(tokens), mean.astype(np.float64), squared)


def _check_text(moments: Mapping[Site, Moments]) -> None:
  if any(site.tokens == 0 for site in moments.values()):
    raise UserError(
      "The held-out batches hold no text to evaluate on; hold out a larger"
      " share of the documents, or read more rows."
    )


def _ratio(above, below):
  """Returns a quotient, elementwise; NaN where it is not defined."""
  with np.errstate(divide="ignore", invalid="ignore"):
    return np.where(below > 0, np.divide(above, below), np.nan)


def _sparsity(
  read: Sequence[Moments],
  written: Sequence[Moments],
  by_document: Mapping[str, np.ndarray],
  fired: np.ndarray,
  error: np.ndarray,
) -> Sparsity:
  """Forms the figures of one autoencoder.

  Args:
    read: the moments of the sites that it reads.
    written: those of the sites that it writes.
    by_document: the sums of each document.
    fired: the number of active tokens of each latent, [F].
    error: Σ (y - ŷ), [D].
  """
  total = {name: float(x.sum()) for name, x in by_document.items()}
  n, squared_error = written[0].tokens, total["error"]
  deviation = _deviation(written)
  # By document they are around the means of steps, which are a little closer.
  closer = deviation / total["deviation"] if total["deviation"] else math.nan
  mean = lambda figure: (by_document[figure], by_document["tokens"])
  return Sparsity(
    tokens=n,
    documents=len(by_document["tokens"]),
    l0=float(fired.sum() / n),
    l1=total["l1"] / n,
    fvu=squared_error / deviation,
    mse=squared_error / n,
    normalised_mse=float(_ratio(squared_error, total["y2"])),
    cosine=total["cosine"] / n,
    norm_ratio=total["norm_ratio"] / n,
    reconstruction_bias=total["made2"] / (total["dot"] or math.nan),
    fvu_per_token=total["error_per_token"] / n,
    fvu_of_variances=(squared_error - float(error @ error) / n) / deviation,
    gamma=math.sqrt(n * _squared_mean(read)) / math.sqrt(_deviation(read)),
    density=fired / n,
    ratios={
      "l0": mean("active"),
      "fvu": (by_document["error"], closer * by_document["deviation"]),
      "cosine": mean("cosine"),
      "norm_ratio": mean("norm_ratio"),
    },
  )


def _squared_mean(sites: Sequence[Moments]) -> float:
  return sum(float(moments.mean @ moments.mean) for moments in sites)


def _deviation(sites: Sequence[Moments]) -> float:
  """Returns Σ‖y - ȳ‖²; NaN where it is only rounding."""
  deviation = sum(moments.squared_deviation for moments in sites)
  rounding = _ROUNDING * sites[0].tokens * _squared_mean(sites)
  return deviation if deviation > rounding else math.nan
