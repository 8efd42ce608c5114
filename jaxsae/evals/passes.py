"""The passes of an evaluation: the model clean, ablated and spliced.

Each pass makes the residual stream after all blocks. Those of one kind share
one compiled function, whatever their sites.

Shapes: B batch, T time, D site width.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxsae import mesh as meshes
from jaxsae.evals.steps import ChunkedSae
from jaxsae.lm import Lm, Place, Site, Splice, Taps
from jaxsae.lm.moving import (
  NOWHERE,
  MovingPatch,
  MovingSplice,
  Shape,
  stream_patched,
  stream_spliced,
)
from jaxsae.lm.sites import names
from jaxsae.sae import Sae
from jaxsae.token_batch import TokenBatch

CLEAN = "clean"  # the pass without an edit

Stream = Callable[[TokenBatch], jax.Array]


def passes_of(
  lm: Lm,
  placed: Mapping[str, tuple[Taps, Sae]],
  means: Mapping[Site, np.ndarray],
) -> dict[str, Stream]:
  """Returns what makes the residual stream of each pass, by its name.

  The first one is `CLEAN`; the others are named by `ablated` and `spliced`.

  Args:
    lm: the language model.
    placed: name → taps and autoencoder of raw activations.
    means: mean activation [D] of each site that is written.
  """
  written = sorted({taps.writes for taps, _ in placed.values()})
  zeros = {
    site: np.zeros_like(means[site]) for some in written for site in some
  }
  passes: dict[str, Stream] = {CLEAN: _Patched(lm, written, (), {})}
  for some in written:
    passes[ablated("mean", some)] = _Patched(lm, written, some, means)
    passes[ablated("zero", some)] = _Patched(lm, written, some, zeros)
  shapes = shared_shapes(placed)
  for name, (taps, sae) in placed.items():
    splice = Splice(ChunkedSae(sae, lm.mesh))
    edit = MovingSplice.at(taps, splice, shapes[name])
    passes[spliced(name)] = functools.partial(spliced_stream, lm, edit)
  return passes


def count_passes(places: Iterable[Place]) -> int:
  """Returns how often autoencoders at some places read the loss batches."""
  every = [Taps.of(place) for place in places]
  return 1 + 2 * len({taps.writes for taps in every}) + len(every)


def ablated(how: str, written: Sequence[Site]) -> str:
  """Returns the name of the pass in which some sites are ablated."""
  return f"{how} {names(written)}"


def spliced(name: str) -> str:
  """Returns the name of the pass in which an autoencoder is spliced in."""
  return f"spliced {name}"


def shared_shapes(placed: Mapping[str, tuple[Taps, Sae]]) -> dict[str, Shape]:
  """Returns each autoencoder's shape, one for all whose arrays are alike."""
  joined: dict[Any, Shape] = {}
  keys = {}
  for name, (taps, sae) in placed.items():
    shape, form = Shape.of(taps), jax.tree.structure(sae)
    arrays = tuple((x.shape, x.dtype) for x in jax.tree.leaves(sae))
    keys[name] = (form, arrays, shape.counts)
    joined[keys[name]] = joined.get(keys[name], shape) | shape
  return {name: joined[key] for name, key in keys.items()}


class _Patched:
  """The stream with values in place of some sites' activations, on all text.

  One compiled function serves every set of sites.

  Args:
    lm: the language model.
    every: all sets of sites that are patched in any pass.
    sites: the set of sites that is patched in this one; may be empty.
    values: site → its value [D].
  """

  def __init__(
    self,
    lm: Lm,
    every: Sequence[Sequence[Site]],
    sites: Sequence[Site],
    values: Mapping[Site, np.ndarray],
  ):
    at, numbers = {}, {}
    for where in sorted({site.where for some in every for site in some}):
      of_kind = lambda some, where=where: [s for s in some if s.where == where]
      most = max(len(of_kind(some)) for some in every)
      d = Site(where, 0).width(lm.config)
      at[where] = np.full(most, NOWHERE, np.int32)
      numbers[where] = np.zeros((most, d), np.float32)
      for index, site in enumerate(of_kind(sites)):
        at[where][index] = site.number
        numbers[where][index] = values[site]
    self._lm, self._patch = lm, MovingPatch(at, numbers)

  def __call__(self, step: TokenBatch) -> jax.Array:
    return meshes.wait_for(patched_stream(self._lm, self._patch, step))


@jax.jit
def patched_stream(lm: Lm, edit: MovingPatch, step: TokenBatch) -> jax.Array:
  """Returns the residual stream after all blocks with patches, [B, T, D]."""
  text = lm.text_mask(step.tokens, step.segments)
  return stream_patched(lm, step, edit.replace(mask=text))


@jax.jit
def spliced_stream(lm: Lm, edit: MovingSplice, step: TokenBatch) -> jax.Array:
  """Returns the residual stream after all blocks with a splice, [B, T, D]."""
  text = lm.text_mask(step.tokens, step.segments)
  splice = edit.splice.replace(mask=text)
  return stream_spliced(lm, step, edit.replace(splice=splice))
