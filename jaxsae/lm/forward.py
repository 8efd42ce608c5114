"""Running the language model while reading or editing its sites."""

from collections.abc import Mapping

import jax

from jaxsae.errors import UserError
from jaxsae.lm.config import LmConfig
from jaxsae.lm.edits import Edit, PairEdit, is_pytree
from jaxsae.lm.gemma import Tap
from jaxsae.lm.lm import Lm
from jaxsae.lm.sites import Site


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
    edits: site → `Steer`, `Clamp` or another edit, or any function of the
      activation [B, T, D].
    segments: int [B, T] for packed rows; by default each row is one document.
    positions: int [B, T], counted from 0 in each segment.
    num_blocks: stop after this many blocks, without logits.

  Returns:
    Logits [B, T, V], or the residual stream [B, T, D] if `num_blocks` is given.
  """
  tap = make_tap(edits, lm.config)
  return lm.apply(tokens, segments, positions, tap, num_blocks)


def make_tap(edits: Mapping[Site, Edit], config: LmConfig) -> Tap:
  """Makes the tap that puts each site's activation through its edit.

  The result is cast to the activation's dtype, whatever the edit computes in.

  Raises:
    UserError: the model lacks a site, or one is a pair; or, when the tap is
      called, an edit changes the shape.
  """
  for site in edits:
    site.check(config)
    _check_single(site)
  reads = {e.reads for e in edits.values() if isinstance(e, PairEdit)}
  kept = {}

  def tap(where, layer, x):
    site = Site(where, layer)
    if site in edits:
      x = _apply(edits[site], site, x, kept)
    if site in reads:
      kept[site] = x
    return x

  return tap


def _check_single(site: Site) -> None:
  if site.input != site.output:
    raise UserError(
      f"{site} is a pair of sites; read or edit {site.input} or {site.output},"
      " or put a transcoder in its place with splice()."
    )


def _apply(edit: Edit, site: Site, x: jax.Array, kept: dict) -> jax.Array:
  # Popping leaves no tracer behind when a trace is over.
  new = edit(x, kept.pop(edit.reads)) if isinstance(edit, PairEdit) else edit(x)
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

  `edit(lm, tokens, {site: Steer(direction, 8)})` steers; a function such as
  `lambda x: x + 8 * direction` or an autoencoder may stand in its place. For
  transcoders there is `splice`.

  If all edits are pytrees, such as those of `jaxsae.lm.edits`, an `Sae` or a
  `jax.tree_util.Partial`, the pass is compiled once for each shape, and other
  values compile nothing. With a plain function it runs operation by operation.

  Args:
    lm: the language model.
    tokens: int [B, T].
    edits: site → edit of its activation.
    **packing: `segments` and `positions`, as for `run`.
  """
  if not edits or not all(map(is_pytree, edits.values())):
    return run(lm, tokens, edits, **packing)
  lm.check_ids(tokens)  # inside `jit` they cannot be read
  return _compiled(lm, tokens, dict(edits), **packing)


_compiled = jax.jit(run, static_argnames="num_blocks")


def splice(site: Site, replace: Edit) -> dict[Site, Edit]:
  """Makes edits that replace a site's activation by a function of it.

  `edit(lm, tokens, splice(site, sae))` splices an autoencoder or a transcoder
  in. At a pair, the input is kept until the output is computed.

  Args:
    site: a site or a pair.
    replace: maps the activation [B, T, D_in] of `site.input` to the new
      activation [B, T, D] of `site.output`. At a pair, a `Splice` or `Clamp`
      keeps the output's own values where its mask is 0.
  """
  if site.input == site.output:
    return {site: replace}
  return {site.output: PairEdit(replace, site.input)}


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
