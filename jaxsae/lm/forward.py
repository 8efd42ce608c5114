"""Running the language model while reading or editing its sites."""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsae.brief import brief
from jaxsae.errors import UserError
from jaxsae.lm.arguments import as_packing
from jaxsae.lm.belongs import check_model, check_place
from jaxsae.lm.config import LmConfig
from jaxsae.lm.edits import (
  Ablate,
  Clamp,
  Edit,
  Edits,
  Steer,
  TapsEdit,
  is_pytree,
)
from jaxsae.lm.gemma import Tap
from jaxsae.lm.lm import Lm, check_lm
from jaxsae.lm.made import as_shape, breaks, refuse_broken
from jaxsae.lm.sites import Place, Site, Taps, join

# What JAX raises where a function that is compiled uses NumPy or Python's `if`.
_NEEDS_VALUES = (
  jax.errors.ConcretizationTypeError,
  jax.errors.TracerArrayConversionError,
)

At = TypeVar("At", bound=Place)


def run(
  lm: Lm,
  tokens: ArrayLike,
  edits: Edits,
  *,
  segments: ArrayLike | None = None,
  positions: ArrayLike | None = None,
  num_blocks: int | None = None,
) -> jax.Array:
  """One forward pass in which each site's activation goes through its edit.

  Args:
    lm: the language model.
    tokens: int [B, T].
    edits: site → `Steer`, `Clamp` or another edit, or any function of the
      activation [B, T, D]. An edit from `splice` that reads a site after the
      first that it writes gets it from a pass before, with all other edits.
    segments: int [B, T] for packed rows; by default each row is one document.
    positions: int [B, T], counted from 0 in each segment.
    num_blocks: stop after this many blocks, without logits.

  Returns:
    Logits [B, T, V], or the residual stream [B, T, D] if `num_blocks` is given.

  Raises:
    UserError: tokens or edits are not what they should be, or an edit made NaN
      or infinity (not told inside `jit`).
  """
  check_lm(lm)
  made, broken = _run(
    lm,
    tokens,
    by_site(edits, lm),
    segments=segments,
    positions=positions,
    num_blocks=num_blocks,
  )
  refuse_broken(broken)
  return made


def _run(lm, tokens, at_site, *, segments, positions, num_blocks=None):
  """Returns what `run` does, and {site: whether its edit made NaN}."""
  clean = _read_ahead(lm, tokens, at_site, segments, positions)
  broken: dict[Site, jax.Array] = {}
  tap = make_tap(at_site, lm.config, clean, broken)
  return lm.apply(tokens, segments, positions, tap, num_blocks), broken


def make_tap(
  edits: Edits,
  config: LmConfig,
  clean: Mapping[Site, jax.Array] | None = None,
  broken: dict[Site, jax.Array] | None = None,
) -> Tap:
  """Makes the tap that puts each site's activation through its edit.

  The result is cast to the activation's dtype, whatever the edit computes in.

  Args:
    edits: site → edit.
    config: the language model's sizes.
    clean: activations of a pass before, for edits whose taps are not causal.
    broken: where the tap notes, bool [], whether each edit made values that are
      not finite of those that were; None: it does not look.

  Raises:
    UserError: the model lacks a site, or one is not a single site, or `clean`
      lacks an activation; or, when the tap is called, an edit changes the
      shape.
  """
  at_site, clean = by_site(edits), clean or {}
  reads: set[Site] = set()
  for site, edit in at_site.items():
    site.check(config)
    if isinstance(edit, TapsEdit):
      edit.taps.check(config)
      _check_alone(edit.taps, at_site)
      reads.update(_reads_on_the_way(edit.taps, clean))
  kept: dict[Site, jax.Array] = {}  # after the site's edit
  before: dict[Site, jax.Array] = {}  # without it

  def tap(where, layer, x):
    site, new = Site(where, layer), x
    if site in reads:
      before[site] = x
    if site in at_site:
      new = _apply(at_site[site], site, x, kept, before, clean)
    if broken is not None and new is not x:
      broken[site] = breaks(x, new)
    if site in reads:
      kept[site] = new
    return new

  return tap


def by_site(edits: Edits, lm: Lm | None = None) -> dict[Site, Edit | TapsEdit]:
  """Returns edits by site, where a place may be a site or its taps.

  Args:
    edits: place → edit.
    lm: the language model, to which autoencoders must belong; None: any.

  Raises:
    UserError: a place is not a single site, a site has two edits, there is
      something else in place of an edit, or an autoencoder that was loaded is
      of another site or model.
  """
  if not isinstance(edits, Mapping):
    raise UserError(
      f"Edits {brief(edits)} are not a mapping; give {{site: edit}}, as in"
      " {Site('resid', 3): Steer(direction, 8)}, or what splice() returns."
    )
  found: dict[Site, Edit | TapsEdit] = {}
  for place, edit in edits.items():
    site = Taps.of(place).site
    _check_edit(site, edit)
    _check_latent(edit)
    taps = edit.taps if isinstance(edit, TapsEdit) else Taps.of(site)
    check_place(edit, taps)
    if lm is not None:
      taps.check(lm.config)
      check_model(edit, taps, lm)
    if site in found:
      raise UserError(
        f"{site} has two edits; give one, which may call both in turn."
      )
    found[site] = edit
  return found


def _check_edit(site: Site, edit: Any) -> None:
  """Raises UserError for what cannot be called on an activation."""
  if isinstance(edit, type) or not callable(edit):
    raise UserError(
      f"The edit at {site} is {brief(edit)}, which maps no activations; give a"
      " function of the activation, or an edit such as Steer(direction, 8)."
    )


def _check_latent(edit: Any) -> None:
  """Raises UserError if an edit clamps a latent that there is not."""
  inner = edit.edit if isinstance(edit, TapsEdit) else edit
  if isinstance(inner, Clamp):
    inner.checked_latent()


def _check_alone(taps: Taps, at_site: Mapping[Site, Edit | TapsEdit]) -> None:
  """Raises UserError if another edit took the place of a part of `splice`."""
  for site in taps.writes:
    if site in at_site and getattr(at_site[site], "taps", None) != taps:
      raise UserError(
        f"{taps} writes {site}, which has another edit; leave out one of them."
      )


def _reads_on_the_way(
  taps: Taps, clean: Mapping[Site, jax.Array]
) -> tuple[Site, ...]:
  """Returns the sites that are read in the same pass as they are written."""
  if taps.is_causal:
    return taps.reads
  if not clean.keys() >= set(taps.reads):
    raise UserError(
      f"{taps} reads a site that is computed after the first that it writes,"
      " so it needs a clean forward pass first, which generate() does not make;"
      " use edit()."
    )
  return ()


def _read_ahead(
  lm: Lm,
  tokens: ArrayLike,
  at_site: Mapping[Site, Edit | TapsEdit],
  segments: ArrayLike | None,
  positions: ArrayLike | None,
) -> dict[Site, jax.Array]:
  """Reads the sites of edits that are not causal, with all other edits."""
  late = {
    site: edit.taps
    for site, edit in at_site.items()
    if isinstance(edit, TapsEdit) and not edit.taps.is_causal
  }
  sites = {site for taps in late.values() for site in taps.reads}
  if not sites:
    return {}
  others = {s: edit for s, edit in at_site.items() if s not in late}
  seen, tap = {}, make_tap(others, lm.config)

  def reading(where, layer, x):
    new = tap(where, layer, x)
    if Site(where, layer) in sites:
      seen[Site(where, layer)] = new
    return new

  depth = 1 + max(site.layer for site in sites)
  lm.apply(tokens, segments, positions, reading, depth)
  return seen


def _apply(
  edit: Edit | TapsEdit,
  site: Site,
  x: jax.Array,
  kept: Mapping[Site, jax.Array],
  before: Mapping[Site, jax.Array],
  clean: Mapping[Site, jax.Array],
) -> jax.Array:
  """Returns the new activation of a site; names the site in what it raises."""
  who = f"The edit at {site}"
  try:
    if isinstance(edit, TapsEdit):
      # A site that is both read and written is read as it is.
      own = {s: before[s] for s in edit.taps.writes if s in before}
      found = {**kept, **own} if edit.taps.is_causal else clean
      new = edit(x, join(found, edit.taps.reads))
    else:
      new = edit(x)
  except UserError as error:
    if str(error).startswith("The edit at"):
      raise
    raise UserError(f"{who}: {error}") from error
  except _NEEDS_VALUES as error:
    raise UserError(
      f"{who} asks for the values of activations while they are being compiled;"
      " write it with jax.numpy alone, as in jnp.where(x > 0, x, 0)."
    ) from error
  if new is x:
    return x
  return jnp.asarray(as_shape(new, x.shape, who)).astype(x.dtype)


def edit(
  lm: Lm,
  tokens: ArrayLike,
  edits: Edits,
  *,
  segments: ArrayLike | None = None,
  positions: ArrayLike | None = None,
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
    segments: int [B, T] for packed rows; by default each row is one document.
    positions: int [B, T], counted from 0 in each segment.

  Raises:
    UserError: as in `run`.
  """
  check_lm(lm)
  at_site = by_site(edits, lm)
  if not at_site or not all(map(is_pytree, at_site.values())):
    return run(lm, tokens, at_site, segments=segments, positions=positions)
  rows = lm.as_rows(tokens)  # inside `jit` they cannot be read
  packing = {
    name: None if x is None else as_packing(x, rows, name.capitalize())
    for name, x in (("segments", segments), ("positions", positions))
  }
  logits, broken = _compiled(lm, rows, at_site, **packing)
  refuse_broken(broken)
  return logits


_compiled = jax.jit(_run, static_argnames="num_blocks")


def splice(place: Place, replace: Edit) -> dict[Place, Edit | TapsEdit]:
  """Makes edits that replace the sites that an autoencoder writes.

  `edit(lm, tokens, splice(taps, sae))` splices an autoencoder or a transcoder
  in. What is read is kept until what is written is computed.

  Args:
    place: a site, or the taps of a transcoder or crosscoder.
    replace: maps the activations that are read, joined, [B, T, D_in], to the
      new activations of the sites that are written, joined, [B, T, D]. A
      `Splice` or `Clamp` keeps their own values where its mask is 0.

  Raises:
    UserError: a `Steer` or `Ablate`, which changes what it reads, is given
      where other sites are written; or an autoencoder that was loaded is of
      other sites.
  """
  taps = Taps.of(place)
  check_place(replace, taps)
  if len(taps.sites) == 1:
    return {taps.site: replace}
  if taps.transcodes and isinstance(replace, Steer | Ablate):
    raise UserError(
      f"{type(replace).__name__} changes the activation that it reads, but"
      f" {taps} reads other sites than it writes; edit one of"
      f" {', '.join(map(str, taps.writes))} itself, or use Splice(sae,"
      " latents=…)."
    )
  return {
    site: TapsEdit(replace, taps, index)
    for index, site in enumerate(taps.writes)
  }


def capture(
  lm: Lm,
  tokens: ArrayLike,
  *sites: At,
  segments: ArrayLike | None = None,
  positions: ArrayLike | None = None,
) -> dict[At, jax.Array]:
  """Returns {site: [B, T, D]}; blocks above the last site do not run.

  A site may be given as text, as in `"resid.12"`, and is found under it.
  """
  check_lm(lm)
  single = {place: Taps.of(place).site for place in sites}
  seen: dict[Site, jax.Array] = {}

  def reader(site: Site) -> Edit:
    def read(x):
      seen[site] = x
      return x

    return read

  depth = 1 + max((site.layer for site in single.values()), default=-1)
  readers: Edits = {site: reader(site) for site in single.values()}
  run(
    lm,
    tokens,
    readers,
    segments=segments,
    positions=positions,
    num_blocks=depth,
  )
  in_order = sorted(single.items(), key=lambda item: item[1].depth)
  return {place: seen[site] for place, site in in_order}
