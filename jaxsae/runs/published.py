"""Evaluation of published autoencoders, such as downloaded ones.

They are judged as a run's are, on a text that is given; what their files say
about them is compared with what is found.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from jaxsae import data, evals, formats, overrides, pod
from jaxsae import mesh as meshes
from jaxsae.data import Corpus, DataConfig
from jaxsae.errors import UserError
from jaxsae.files import check_writable, given_path, remove_leftovers
from jaxsae.formats import Published, card, gemma_scope, hub
from jaxsae.lm import Lm, Place, Taps, load_lm
from jaxsae.runs.eval_progress import EvalProgress
from jaxsae.runs.evaluate import RESULTS
from jaxsae.runs.settings import RunSettings
from jaxsae.runs.unfinished import Unfinished
from jaxsae.sae import Sae
from jaxsae.train.placement.layout import resting_axes
from jaxsae.train.process import agreement
from jaxsae.train.process.shutdown import ShutdownSignal

_FAR = 1.5  # ratio of a figure to the file's own from which a note is printed


@dataclasses.dataclass(frozen=True)
class _Given:
  """A published autoencoder to evaluate.

  Attributes:
    name: its folder, relative to the path that was given.
    path: where it is.
    taps: the sites that it reads and writes.
    model: the name of its language model, if its file says it.
    metrics: the figures that its file has.
    digest: that of its arrays.
  """

  name: str
  path: epath.Path
  taps: Taps
  model: str | None
  metrics: Mapping[str, float]
  digest: str


def evaluate_published(
  paths: Sequence[formats.Path],
  text: str,
  settings: RunSettings,
  out: formats.Path,
  context: int = 1024,
  place: Place | None = None,
) -> dict[str, evals.Result]:
  """Evaluates autoencoders of any format; writes `results.json` in a folder.

  All processes of a pod call it together. If the process is asked to stop, it
  leaves what it measured in the folder, and the same call goes on with it.

  Args:
    paths: autoencoders, or folders with any number of them below.
    text: the text to judge them on, all of which is read: a file or folder.
    settings: the language model, by default the one that the files name; where
      tokens are kept; the mesh; and how much text is read.
    out: the folder.
    context: tokens in a row of text, BOS included.
    place: the site or taps of all, for files that do not say it.

  Returns:
    The results by folder, relative to the path that was given.

  Raises:
    UserError: there is no autoencoder, or a file does not say its site or its
      model, or says another one than the others; or there is no such text.
  """
  out = given_path(out)
  data.check_source(text)
  pod.on_leader(lambda: check_writable(out / RESULTS, "give another --out=DIR"))
  given = [_look_at(name, at, place) for name, at in _named(paths).items()]
  mesh = meshes.make(settings.mesh)
  lm = load_lm(_model(given, settings), mesh=mesh, fsdp=settings.fsdp)
  saes = {one.name: (one.taps, _read(one, lm, mesh)) for one in given}
  corpus = _corpus(text, settings, context, lm)
  about = {
    "settings": overrides.to_json(settings.eval),
    "lm": lm.name,
    "source": text,
    "text": corpus.fingerprint,
    "context": context,
  }
  results = _measure(lm, saes, corpus, settings, out, _identity(given, about))
  pod.on_leader(lambda: _write(results, out / RESULTS, about))
  pod.print_on_leader(*_differences(given, results))
  return results


def _named(paths: Iterable[formats.Path]) -> dict[str, epath.Path]:
  """Returns autoencoders by name: their folders, as short as they can be."""
  found: dict[str, epath.Path] = {}
  for path in paths:
    top = hub.local(path)
    for one in formats.autoencoders_at(top):
      name = str(path) if one == top else os.path.relpath(one, top)
      found[str(one) if name in found else name] = one
  return found


def _look_at(name: str, path: epath.Path, place: Place | None) -> _Given:
  """Reads what a file says about its autoencoder, and keeps no array.

  Raises:
    UserError: it says another site than it is given, or none.
  """
  published = _record(path)
  taps = published.taps
  if place is not None:
    taps = Taps.of(place)
    if published.taps not in (None, taps):
      raise UserError(
        f"{path} says that it is of {published.taps}, not of {taps}; leave out"
        " --site, or give it alone."
      )
  if taps is None:
    raise UserError(
      f"{path} does not say at which site it belongs; add --site=, such as"
      " --site=resid.12."
    )
  whole = hashlib.sha256()
  for array in jax.tree.leaves(published.sae):
    whole.update(np.ascontiguousarray(array).data)
  metrics = dict(published.metrics)
  return _Given(name, path, taps, published.model, metrics, whole.hexdigest())


def _record(path: epath.Path) -> Published:
  return card.complete(path, formats.format_of(path).read(path))


def _model(given: Sequence[_Given], settings: RunSettings) -> str:
  """Returns the name or path of the language model of all autoencoders."""
  if settings.lm:
    return settings.lm
  names = sorted({one.model for one in given if one.model is not None})
  if len(names) != 1:
    told = f"name {' and '.join(names)}" if names else "name none"
    raise UserError(
      f"On which language model? The {len(given)} autoencoders {told}; add"
      " --lm=, a name or a folder."
    )
  return names[0]


def _read(one: _Given, lm: Lm, mesh: Mesh) -> Sae:
  """Reads an autoencoder onto the mesh, as one of what `one.taps` reads."""
  published = _record(one.path)
  sae = published.sae
  if published.before_gain:
    sae = gemma_scope.from_published(sae, one.taps, lm)
  axes = resting_axes(sae.width, mesh) or None
  specs: dict[str, tuple[Any, ...]] = {"w_enc": (None, axes), "w_dec": (axes,)}
  specs |= {"b_enc": (axes,), "threshold": (axes,)}

  def place(path, x):
    layout = meshes.shard(mesh, *specs.get(path[-1].name, ()))
    return jax.device_put(np.asarray(x), layout)

  return jax.tree_util.tree_map_with_path(place, sae)


def _corpus(text: str, settings: RunSettings, context: int, lm: Lm) -> Corpus:
  if lm.tokenizer is None:
    raise UserError(
      f"{lm.name} has no tokenizer, so it cannot read text; put its tokenizer"
      " beside its weights."
    )
  config = DataConfig(
    source=text,
    text_column=settings.data.text_column,
    cache=settings.data.cache or DataConfig().cache,
    context=context,
  )
  return data.open_held_out(config, lm.tokenizer)


def _identity(given: Sequence[_Given], about: Mapping[str, Any]) -> dict:
  """Returns everything that decides the figures."""
  return {
    "autoencoders": [[x.name, str(x.taps), x.digest] for x in given],
    "devices": [jax.devices()[0].device_kind, jax.device_count()],
    "program": agreement.of_code(),
    **about,
  }


def _measure(
  lm: Lm,
  saes: Mapping[str, tuple[Taps, Sae]],
  corpus: Corpus,
  settings: RunSettings,
  out: epath.Path,
  identity: Mapping[str, Any],
) -> dict[str, evals.Result]:
  amount = settings.eval
  batches = lambda: itertools.islice(
    data.held_out_batches(corpus, amount.batch), amount.batches
  )
  with contextlib.ExitStack() as ending:
    stop = ending.enter_context(ShutdownSignal())
    unfinished = Unfinished(
      out / ".unfinished-results", identity, stop, first=0
    )
    every = -(-len(corpus.held_out) // amount.batch)
    every_taps = [taps for taps, _ in saes.values()]
    progress = EvalProgress(min(every, amount.batches), every_taps)
    pod.print_on_leader(f"evaluating {len(saes)} autoencoders …")
    results = evals.evaluate(
      lm,
      saes,
      batches,
      amount.loss_batches,
      ending.enter_context(progress),
      unfinished,
      amount.control_batches,
      kind=corpus.suffix_of,
    )
  pod.on_leader(unfinished.remove)
  return results


def _write(
  results: Mapping[str, evals.Result], path: epath.Path, about: dict[str, Any]
) -> None:
  remove_leftovers(path.parent)
  evals.write(results, path, **about)


def _differences(
  given: Sequence[_Given], results: Mapping[str, evals.Result]
) -> Iterator[str]:
  """Yields a note on each figure that is far from what the file says."""
  for one in given:
    result = results[one.name]
    for figure in ("l0", "fvu"):
      said, found = one.metrics.get(figure), getattr(result, figure)
      if said and not 1 / _FAR < found / said < _FAR:
        yield (
          f"note: {one.path} has {figure} {found:.3g} on this text, and"
          f" {said:.3g} by its own file; another site, model or kind of text"
          " may be why"
        )
    if result.fvu > 1:
      yield (
        f"note: {one.path} reconstructs {one.taps} worse than the mean does"
        f" (FVU {result.fvu:.3g}); this is probably not its site or its model"
      )
