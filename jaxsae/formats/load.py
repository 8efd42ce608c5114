"""Loading an autoencoder from a disk or store, in any supported format."""

from etils import epath

from jaxsae.errors import UserError
from jaxsae.formats.format import Format, Path
from jaxsae.formats.registry import FORMATS
from jaxsae.sae import Sae


def load_sae(path: Path) -> Sae:
  """Loads the autoencoder at `path`, which takes raw activations.

  A transcoder published by Gemma Scope reads the activations of its site before
  the norm's gain; `gemma_scope.from_published` converts it. For what else the
  file says, use `format_of(path).read(path)`.

  Args:
    path: a file or folder in one of `FORMATS`, such as a Gemma Scope `.npz`
      file or the directory with its `params.npz`.

  Raises:
    UserError: `path` does not exist or is not a readable autoencoder.
  """
  return format_of(path).read(path).sae


def format_of(path: Path) -> Format:
  """Returns the one format of `FORMATS` that matches a file or folder.

  Raises:
    UserError: no format matches, or more than one does.
  """
  matching = [f for f in FORMATS.values() if f.matches(path)]
  if not matching:
    exists = epath.Path(path).exists()
    raise UserError(
      f"{path} {'is not an autoencoder' if exists else 'does not exist'}; give"
      f" {', or '.join(f.accepts for f in FORMATS.values())}."
    )
  if len(matching) > 1:
    raise UserError(
      f"{path} matches more than one format"
      f" ({', '.join(f.name for f in matching)}); give a path that holds only"
      " one, or call the read method of one of jaxsae.formats.FORMATS."
    )
  return matching[0]
