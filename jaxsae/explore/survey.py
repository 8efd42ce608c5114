"""The survey: one pass over text that finds what the report shows.

Letters in shapes: B rows, T time, N tokens, D width of the site that is read,
F latents, P latents looked at together.
"""

import functools
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsae import mesh as meshes
from jaxsae.errors import UserError
from jaxsae.explore.contexts import Best, add_contexts, no_contexts, to_report
from jaxsae.explore.neighbours import nearest
from jaxsae.explore.promoted import logit_effects
from jaxsae.explore.report import Report, SaeReport
from jaxsae.explore.strength import (
  Strength,
  add_strength,
  histogram,
  no_strength,
)
from jaxsae.lm import Lm, Site, capture
from jaxsae.sae import Sae

_AT_ONCE = 2048  # latents whose activations on a batch are held at a time


def survey(
  lm: Lm,
  saes: Mapping[str, tuple[Site, Sae]],
  batches: Iterable[Mapping[str, np.ndarray]],
  documents: list[str],
  metrics: Mapping[str, dict],
  *,
  title: str,
  run: dict,
  contexts: int = 8,
  window: int = 32,
  bins: int = 20,
  effects: int = 10,
  neighbours: int = 8,
) -> Report:
  """Looks at every latent of some autoencoders of one language model.

  The text is read once, and one forward pass of the language model feeds all
  autoencoders. Padding, BOS and EOS count nowhere.

  Args:
    saes: name → where the autoencoder belongs, and the autoencoder, of raw
      activations; or a pair of sites and a transcoder.
    batches: as `data.held_out_batches` makes them; read as they are needed, so
      a progress bar may be wrapped around them.
    documents: names, indexed by a batch's `document`.
    metrics: name → what `SaeReport.metrics` holds.
    title: of the report.
    run: its facts; see `Report.run`.
    contexts: top contexts of each latent.
    window: tokens of a context.
    bins: of the activation histograms.
    effects: promoted and suppressed tokens of each latent.
    neighbours: nearest latents of each latent.

  Raises:
    UserError: an autoencoder that does not fit its site, or no text.
  """
  if saes.keys() != metrics.keys():
    raise ValueError(f"metrics of {list(metrics)} for {list(saes)}")
  for name, (site, sae) in saes.items():
    _check_fits(lm, name, site, sae)
  seen, tokens = _watch(lm, saes, batches, contexts, window)
  return Report(
    title=title,
    run=run,
    saes=[
      SaeReport(
        name=name,
        site=str(site),
        width=sae.width,
        metrics=metrics[name],
        **_activity(seen[name], tokens, bins),
        **_meaning(lm, site, sae, effects, neighbours),
      )
      for name, (site, sae) in saes.items()
    ],
    vocabulary=_vocabulary(lm),
    documents=documents,
  )


def _check_fits(lm: Lm, name: str, site: Site, sae: Sae) -> None:
  site.check(lm.config)
  for end, verb, found in (
    (site.input, "takes", sae.w_enc.shape[-2]),
    (site.output, "makes", sae.w_dec.shape[-1]),
  ):
    expected = end.width(lm.config)
    if found != expected:
      raise UserError(
        f"The autoencoder {name} {verb} vectors of {found} numbers and {end} of"
        f" {lm.name or 'the language model'} has {expected}; it belongs to"
        " another site or model."
      )


@struct.dataclass
class _Seen:
  """What is known of some latents so far."""

  strength: Strength
  best: Best


def _watch(lm, saes, batches, contexts, window) -> tuple[dict, int]:
  """What was seen of each autoencoder's latents, and the tokens of text."""
  seen = {
    name: [
      _Seen(no_strength(size), no_contexts(size, contexts, window))
      for size in (len(range(sae.width)[some]) for some in _slices(sae))
    ]
    for name, (_, sae) in saes.items()
  }
  sites = tuple(dict.fromkeys(site.input for site, _ in saes.values()))
  tokens = 0
  for batch in batches:
    batch = jax.tree.map(jnp.asarray, dict(batch))
    activations, mask = _read(lm, sites, batch)
    for name, (site, sae) in saes.items():
      seen[name] = _look(seen[name], sae, activations[site.input], mask, batch)
    tokens += int(jnp.sum(mask))
  if not tokens:
    raise UserError("There is no text to look at; give at least one batch.")
  return {name: _join(parts) for name, parts in seen.items()}, tokens


@functools.partial(jax.jit, static_argnames="sites")
def _read(lm, sites, batch):
  """Activations {site: [B, T, D]} and the mask of text [B, T]."""
  packing = {name: batch[name] for name in ("segments", "positions")}
  mask = lm.text_mask(batch["tokens"], batch["segments"])
  return capture(lm, batch["tokens"], *sites, **packing), mask


def _slices(sae: Sae) -> list[slice]:
  """Which latents are looked at together."""
  return [slice(i, i + _AT_ONCE) for i in range(0, sae.width, _AT_ONCE)]


def _look(seen: list[_Seen], sae: Sae, x, mask, batch) -> list[_Seen]:
  """Adds one batch of raw activations x [B, T, D]."""
  parts = list(zip(seen, _slices(sae), strict=True))
  if sae.k is None:
    return [
      meshes.wait_for(_encode_and_add(old, _part(sae, some), x, mask, batch))
      for old, some in parts
    ]
  # Only all latents together can say which are the k largest.
  latents = _encode(sae, x)
  return [
    meshes.wait_for(_add(old, latents[..., some], mask, batch))
    for old, some in parts
  ]


def _part(sae: Sae, some: slice) -> Sae:
  """A narrower autoencoder, of some of the latents."""
  return sae.replace(
    w_enc=sae.w_enc[:, some],
    b_enc=sae.b_enc[some],
    w_dec=sae.w_dec[some],
    threshold=sae.threshold[some],
  )


@jax.jit
def _encode_and_add(seen, sae, x, mask, batch):
  return _add(seen, _encode(sae, x), mask, batch)


@jax.jit
def _encode(sae, x):
  return sae.encode(x.astype(jnp.float32))


@jax.jit
def _add(seen, latents, mask, batch):
  """Adds one batch of latents [B, T, P]."""
  latents = jnp.where(mask[..., None] > 0, latents, 0)
  return _Seen(
    strength=add_strength(seen.strength, latents),
    best=add_contexts(seen.best, latents, batch),
  )


def _join(parts: list[_Seen]) -> _Seen:
  return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


def _activity(seen: _Seen, tokens: int, bins: int) -> dict:
  return {
    "density": seen.strength.above[:, 0] / tokens,
    "max_activation": seen.strength.maximum,
    "histogram": histogram(seen.strength, bins),
    "contexts": to_report(seen.best),
  }


def _meaning(lm, site, sae, effects, neighbours) -> dict:
  near, cosines = nearest(sae.w_dec, neighbours)
  return {
    **logit_effects(lm, site.output, sae.w_dec, effects)._asdict(),
    "neighbours": near,
    "neighbour_cosines": cosines,
  }


def _vocabulary(lm: Lm) -> list[str]:
  """The text of every row of the embedding, which may have unused ones."""
  pieces = lm.tokenizer.pieces if lm.tokenizer else []
  rest = range(len(pieces), lm.config.vocab_size)
  return [*pieces, *(f"<id {i}>" for i in rest)]
