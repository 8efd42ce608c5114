"""Loading an autoencoder from a disk or store, in any supported format."""

import itertools
import os
from collections.abc import Iterator

from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import entries, files_in, given_path, is_file, is_remote
from jaxsae.formats import card, hub
from jaxsae.formats.format import Format, Path
from jaxsae.formats.registry import FORMATS
from jaxsae.origin import mark
from jaxsae.sae import Sae

_MOST = 5000  # files that are looked through for what could be meant
# Only these are asked whether they load: in a bucket a question is a request.
_WEIGHTS = (".npz", ".pt", ".safetensors")


def load_sae(path: Path) -> Sae:
  """Loads the autoencoder at `path`, which takes raw activations.

  A transcoder published by Gemma Scope reads the activations of its site before
  the norm's gain; `gemma_scope.from_published` converts it. For what else the
  file says, use `format_of(path).read(path)`.

  What is returned knows the sites and the model that it belongs to, if the
  `card.json` beside the file or its path says them: `splice`, `edit` and
  `generate` refuse it elsewhere.

  Args:
    path: a file or folder in one of `FORMATS`, such as a Gemma Scope `.npz`
      file or the directory with its `params.npz`; or, if there is none, its
      name on the Hugging Face Hub: `org/repo[@revision][/folder]`.

  Raises:
    UserError: `path` does not exist or is not a readable autoencoder, or its
      card is of another.
  """
  path = hub.local(path, below=False)
  published = format_of(path).read(path)
  return mark(published.sae, card.origin(path, published))


def load_saes(path: Path) -> dict[str, Sae]:
  """Loads all autoencoders below a folder or Hub's name, as `load_sae` does.

  Returns:
    The autoencoders by their folder, or by their file where several lie in one
    folder, relative to `path`; "." is itself.

  Raises:
    UserError: there are none, or one is damaged.
  """
  top = hub.local(path)
  return {
    os.path.relpath(one, top): load_sae(one) for one in autoencoders_at(top)
  }


def autoencoders_at(path: Path) -> list[epath.Path]:
  """Returns the path if it is an autoencoder, or all that lie below it.

  Raises:
    UserError: there are none.
  """
  top = given_path(path)
  if _loads(top):
    return [top]
  found = list(_autoencoders_below(top)) if top.is_dir() else []
  if is_run(top) or not found:
    raise UserError(f"{path} {_what_it_is(top)}.")
  return found


def format_of(path: Path) -> Format:
  """Returns the one format of `FORMATS` that matches a file or folder.

  Raises:
    UserError: no format matches, or more than one does.
  """
  matching = _matching(path)
  if not matching:
    raise UserError(f"{path} {_what_it_is(given_path(path))}.")
  if len(matching) > 1:
    raise UserError(
      f"{path} matches more than one format"
      f" ({', '.join(f.name for f in matching)}); give {_of_one(path)}."
    )
  return matching[0]


def _matching(path: Path) -> list[Format]:
  return [format for format in FORMATS.values() if format.matches(path)]


def _of_one(path: Path) -> str:
  """Says what to give where several formats match."""
  top = given_path(path)
  folder = top if top.is_dir() else top.parent
  files = sorted(filter(is_file, entries(folder)))
  alone = [str(file) for file in files if len(_matching(file)) == 1]
  return " or ".join(alone) or "a folder that holds only one"


def _what_it_is(path: epath.Path) -> str:
  """Says what is at a path that is no autoencoder, and what to give instead."""
  accepts = f"give {', or '.join(f.accepts for f in FORMATS.values())}"
  if not path.exists():
    return f"does not exist; {accepts}"
  below = list(_autoencoders_below(path)) if path.is_dir() else []
  such_as = f", such as {below[0]} (one of {len(below)} below)" if below else ""
  if not is_run(path):
    return f"is not an autoencoder; {accepts}{such_as}"
  export = f"`jaxsae export {path} --out=DIR`"
  written = such_as or f", which {export} writes"
  return (
    "is a run, not an autoencoder; open it with"
    f" jaxsae.runs.open_run({str(path)!r}).saes, which maps a name to taps and"
    f" autoencoder, or {accepts}{written}"
  )


def is_run(path: epath.Path) -> bool:
  """Returns whether a folder is one that a run trains in."""
  return (path / "config.json").exists() and (path / "checkpoints").exists()


def _autoencoders_below(path: epath.Path) -> Iterator[epath.Path]:
  """Yields the folders and files below a folder that load."""
  inside: dict[epath.Path, list[epath.Path]] = {}
  for file in itertools.islice(_files_below(path), _MOST):
    inside.setdefault(file.parent, []).append(file)
  for folder, files in inside.items():
    if _loads(folder):
      yield folder
    else:  # each of its files may be one
      weights = (file for file in files if file.suffix in _WEIGHTS)
      yield from filter(_loads, weights)


def _loads(path: epath.Path) -> bool:
  return bool(_matching(path))


def _files_below(path: epath.Path) -> Iterator[epath.Path]:
  if is_remote(path):
    yield from (path / name for name in files_in(path))
    return
  for folder, folders, names in os.walk(path):
    folders.sort()
    yield from (epath.Path(folder) / name for name in sorted(names))
