"""The survey: one pass over text that collects what a report shows.

Shapes: B rows, T time, D width of the site that is read, F latents, P latents
of one chunk.
"""

import functools
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsae import mesh as meshes
from jaxsae import pod
from jaxsae.errors import UserError
from jaxsae.evals.steps import over_data
from jaxsae.explore.activation_counts import (
  ActivationCounts,
  add_activations,
  histogram,
  no_activations,
)
from jaxsae.explore.contexts import (
  KeptContexts,
  add_contexts,
  no_contexts,
  sample_ranks,
  to_report,
)
from jaxsae.explore.neighbours import nearest
from jaxsae.explore.promoted import logit_effects
from jaxsae.explore.report import Report, SaeReport
from jaxsae.lm import Lm, Place, Site, Taps, capture
from jaxsae.lm.sites import names
from jaxsae.sae import Sae
from jaxsae.token_batch import TokenBatch

WEAKER = 4  # contexts of each latent from lower quantiles
_CHUNK = 2048  # latents whose activations on a batch are in memory at a time


def survey(
  lm: Lm,
  saes: Mapping[str, tuple[Place, Sae]],
  batches: Iterable[TokenBatch],
  documents: list[str],
  metrics: Mapping[str, dict],
  *,
  title: str,
  run: dict,
  contexts: int = 8,
  weaker: int = WEAKER,
  window: int = 32,
  bins: int = 20,
  effects: int = 10,
  neighbours: int = 8,
) -> Report:
  """Collects a report on every latent of several autoencoders.

  The text is read once, and one forward pass of the language model serves all
  autoencoders. Padding, BOS and EOS are not counted.

  Args:
    lm: the language model.
    saes: name → site, and autoencoder of raw activations; or the taps, and a
      transcoder or crosscoder.
    batches: as from `data.held_out_batches`; read one at a time, so they may be
      wrapped in a progress bar.
    documents: names of the documents, indexed by a batch's `documents`.
    metrics: name → `SaeReport.metrics`.
    title: the report's title.
    run: facts about the run; see `Report.run`.
    contexts: number of top contexts of each latent. A document gives one, and
      two where there are few documents; near-duplicates are left out.
    weaker: number of contexts of each latent from lower quantiles.
    window: number of tokens in a context.
    bins: number of bins in the activation histograms.
    effects: number of promoted, and of suppressed, tokens of each latent.
    neighbours: number of nearest latents of each latent.

  Raises:
    UserError: an autoencoder does not fit its site, or there is no text.
  """
  if saes.keys() != metrics.keys():
    raise ValueError(f"metrics of {list(metrics)} for {list(saes)}")
  placed = {name: (Taps.of(at), sae) for name, (at, sae) in saes.items()}
  for name, (taps, sae) in placed.items():
    _check_fits(lm, name, taps, sae)
  stats, tokens = _collect(lm, placed, batches, (contexts, weaker), window)
  return Report(
    title=title,
    run=run,
    saes=[
      SaeReport(
        name=name,
        site=str(taps),
        width=sae.width,
        metrics=metrics[name],
        **_activity(stats[name], tokens, bins, contexts, weaker),
        **_effects_and_neighbours(lm, taps, sae, effects, neighbours),
      )
      for name, (taps, sae) in placed.items()
    ],
    vocabulary=_vocabulary(lm),
    documents=documents,
  )


def _check_fits(lm: Lm, name: str, taps: Taps, sae: Sae) -> None:
  taps.check(lm.config)
  for sites, verb, found, expected in (
    (taps.reads, "reads", sae.w_enc.shape[-2], taps.d_in(lm.config)),
    (taps.writes, "writes", sae.w_dec.shape[-1], taps.d(lm.config)),
  ):
    if found != expected:
      raise UserError(
        f"The autoencoder {name} {verb} activations of width {found}, but"
        f" {names(sites)}"
        f" of {lm.name or 'the language model'} has width {expected}; give the"
        " site and the model that it was trained on."
      )


class _LatentStats(struct.PyTreeNode):
  """Activation counts and contexts of several latents so far."""

  counts: ActivationCounts
  top: KeptContexts
  sample: KeptContexts


def _collect(lm, placed, batches, contexts, window) -> tuple[dict, int]:
  """Returns each autoencoder's stats, and the number of text tokens."""
  # In NumPy, which every process of a pod takes for the same on all devices.
  begin = lambda size: jax.device_get(
    _LatentStats(
      no_activations(size),
      *(no_contexts(size, shown, window) for shown in contexts),
    )
  )
  chunks = {
    name: [
      begin(size)
      for size in (len(range(sae.width)[chunk]) for chunk in _chunks(sae))
    ]
    for name, (_, sae) in placed.items()
  }
  every = (site for taps, _ in placed.values() for site in taps.reads)
  sites = tuple(dict.fromkeys(every))
  tokens = 0
  for batch in batches:
    batch = _over_data(lm, batch)
    activations, mask = _read(lm, sites, batch)
    for name, (taps, sae) in placed.items():
      x = taps.read(activations)
      chunks[name] = _add_batch(chunks[name], sae, x, mask, batch)
    tokens += int(jnp.sum(mask))
  if not tokens:
    raise UserError(
      "The batches hold no text to survey; give at least one batch with text."
    )
  return {name: _concatenate(of) for name, of in chunks.items()}, tokens


@functools.partial(jax.jit, static_argnames="sites")
def _read(lm, sites, batch):
  """Activations {site: [B, T, D]} and the mask of text [B, T]."""
  mask = lm.text_mask(batch.tokens, batch.segments)
  return capture(lm, batch.tokens, *sites, **batch.packing), mask


def _over_data(lm: Lm, batch: TokenBatch) -> TokenBatch:
  """Puts a batch on the devices; adds rows of padding until `data` divides."""
  data = 1 if lm.mesh is None else lm.mesh.shape["data"]
  more = ((0, -len(batch.tokens) % data), (0, 0))
  return over_data(lm.mesh, jax.tree.map(lambda x: np.pad(x, more), batch))


def _chunks(sae: Sae) -> list[slice]:
  """Splits the latents into chunks that fit in memory."""
  return [slice(i, i + _CHUNK) for i in range(0, sae.width, _CHUNK)]


def _add_batch(
  stats: list[_LatentStats], sae: Sae, x, mask, batch
) -> list[_LatentStats]:
  """Adds a batch of raw activations x [B, T, D] to the stats of all chunks."""
  pairs = list(zip(stats, _chunks(sae), strict=True))
  if sae.k is None:
    return [
      meshes.wait_for(_encode_and_add(old, _narrow(sae, chunk), x, mask, batch))
      for old, chunk in pairs
    ]
  # The k largest are found among all latents, not within a chunk.
  latents = _encode(sae, x)
  return [
    meshes.wait_for(_add(old, latents[..., chunk], mask, batch))
    for old, chunk in pairs
  ]


def _narrow(sae: Sae, chunk: slice) -> Sae:
  """Returns the autoencoder of one chunk of the latents."""
  return sae.replace(
    w_enc=sae.w_enc[:, chunk],
    b_enc=sae.b_enc[chunk],
    w_dec=sae.w_dec[chunk],
    threshold=sae.threshold[chunk],
  )


@jax.jit
def _encode_and_add(stats, sae, x, mask, batch):
  return _add(stats, _encode(sae, x), mask, batch)


@jax.jit
def _encode(sae, x):
  return sae.encode(x.astype(jnp.float32))


@jax.jit
def _add(stats, latents, mask, batch):
  """Adds a batch of latents [B, T, P] to the stats of a chunk."""
  latents = jnp.where(mask[..., None] > 0, latents, 0)
  return _LatentStats(
    counts=add_activations(stats.counts, latents),
    top=add_contexts(stats.top, latents, latents, batch),
    sample=add_contexts(
      stats.sample, sample_ranks(latents, batch), latents, batch
    ),
  )


def _concatenate(chunks: list[_LatentStats]) -> _LatentStats:
  return jax.tree.map(lambda *xs: np.concatenate(xs), *pod.to_host(chunks))


def _activity(
  stats: _LatentStats, tokens: int, bins: int, contexts: int, weaker: int
) -> dict:
  return {
    "density": stats.counts.above[:, 0] / tokens,
    "max_activation": stats.counts.maximum,
    "histogram": histogram(stats.counts, bins),
    "contexts": to_report(stats.top, stats.sample, contexts, weaker),
  }


def _effects_and_neighbours(lm, taps, sae, effects, neighbours) -> dict:
  near, cosines = nearest(sae.w_dec, neighbours)
  return {
    **logit_effects(lm, *_last_written(taps, sae), effects)._asdict(),
    "neighbours": near,
    "neighbour_cosines": cosines,
  }


def _last_written(taps: Taps, sae: Sae) -> tuple[Site, jax.Array]:
  """Returns the site written nearest to the logits, and directions there."""
  d = sae.w_dec.shape[-1] // len(taps.writes)
  index = max(range(len(taps.writes)), key=lambda i: taps.writes[i].depth)
  return taps.writes[index], sae.w_dec[:, index * d : (index + 1) * d]


def _vocabulary(lm: Lm) -> list[str]:
  """The text of every token id; ids that the tokenizer lacks get a name."""
  pieces = lm.tokenizer.pieces if lm.tokenizer else []
  rest = range(len(pieces), lm.config.vocab_size)
  return [*pieces, *(f"<id {i}>" for i in rest)]
