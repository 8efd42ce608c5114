"""Running the language model while reading or editing its sites."""

from collections.abc import Callable, Mapping

import jax

from jaxsae.errors import UserError
from jaxsae.lm.config import GemmaConfig
from jaxsae.lm.gemma import Tap
from jaxsae.lm.lm import Lm
from jaxsae.lm.sites import Site

Edit = Callable[[jax.Array], jax.Array]  # [B, T, D] → [B, T, D]


def run(
  lm: Lm,
  tokens: jax.Array,
  edits: Mapping[Site, Edit],
  *,
  segments: jax.Array | None = None,
  positions: jax.Array | None = None,
  num_blocks: int | None = None,
) -> jax.Array:
  """One forward pass in which each site's activation goes through its edit.

  Args:
    lm: the language model.
    tokens: int [B, T].
    edits: site → function of the activation [B, T, D].
    segments: int [B, T] for packed rows; by default each row is one document.
    positions: int [B, T], counted from 0 in each segment.
    num_blocks: stop after this many blocks, without logits.

  Returns:
    Logits [B, T, V], or the residual stream [B, T, D] if `num_blocks` is given.
  """
  tap = make_tap(edits, lm.config)
  return lm.apply(tokens, segments, positions, tap, num_blocks)


def make_tap(edits: Mapping[Site, Edit], config: GemmaConfig) -> Tap:
  """Makes the tap that puts each site's activation through its edit.

  The result is cast to the activation's dtype, whatever the edit computes in.

  Raises:
    UserError: the model lacks a site, or one is a pair; or, when the tap is
      called, an edit changes the shape.
  """
  for site in edits:
    site.check(config)
    _check_single(site)

  def tap(where, layer, x):
    site = Site(where, layer)
    return _apply(edits[site], site, x) if site in edits else x

  return tap


def _check_single(site: Site) -> None:
  if site.input != site.output:
    raise UserError(
      f"{site} is a pair of sites; read or edit {site.input} or {site.output},"
      " or put a transcoder in its place with splice()."
    )


def _apply(edit: Edit, site: Site, x: jax.Array) -> jax.Array:
  new = edit(x)
  if new.shape != x.shape:
    raise UserError(
      f"The edit at {site} made {list(new.shape)} of {list(x.shape)}; return"
      " an array of the shape that it receives."
    )
  return new.astype(x.dtype)


def edit(
  lm: Lm, tokens: jax.Array, edits: Mapping[Site, Edit], **packing
) -> jax.Array:
  """Returns the logits [B, T, V] of a forward pass with edits in place.

  `edit(lm, tokens, {site: sae})` splices an autoencoder in;
  `edit(lm, tokens, {site: lambda x: x + 8 * direction})` steers; for
  transcoders there is `splice`.
  """
  return run(lm, tokens, edits, **packing)


def splice(site: Site, replace: Edit) -> dict[Site, Edit]:
  """Makes edits that replace a site's activation by a function of it.

  `edit(lm, tokens, splice(site, sae))` splices an autoencoder or a transcoder
  in. At a pair, the input is kept until the output is computed.

  Args:
    site: a site or a pair.
    replace: maps the activation [B, T, D_in] of `site.input` to the new
      activation [B, T, D] of `site.output`.
  """
  if site.input == site.output:
    return {site: replace}
  kept = []

  def keep(x):
    kept.append(x)
    return x

  # Popping leaves no tracer behind when a trace is over.
  return {site.input: keep, site.output: lambda _: replace(kept.pop())}


def capture(
  lm: Lm, tokens: jax.Array, *sites: Site, **packing
) -> dict[Site, jax.Array]:
  """Returns {site: [B, T, D]}; blocks above the last site do not run."""
  seen = {}

  def reader(site):
    def read(x):
      seen[site] = x
      return x

    return read

  depth = 1 + max((site.layer for site in sites), default=-1)
  readers = {site: reader(site) for site in sites}
  run(lm, tokens, readers, num_blocks=depth, **packing)
  return seen
