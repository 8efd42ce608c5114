"""Loading an autoencoder from disk, in any supported format."""

import pathlib

from jaxsae.errors import UserError
from jaxsae.formats import gemma_scope
from jaxsae.sae.model import Sae

SUPPORTED = "a Gemma Scope .npz file or a directory that holds params.npz"


def load_sae(path) -> Sae:
  """Loads the autoencoder at `path`, which takes raw activations.

  A transcoder published by Gemma Scope reads the activations of its site before
  the norm's gain; `gemma_scope.from_published` converts it.

  Args:
    path: a Gemma Scope `.npz` file, or the directory with its `params.npz`.

  Raises:
    UserError: `path` does not exist or is not a readable autoencoder.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise UserError(f"{path} does not exist; give {SUPPORTED}.")
  file = path / gemma_scope.FILE if path.is_dir() else path
  if not file.is_file() or file.suffix != ".npz":
    raise UserError(f"{path} is not an autoencoder; give {SUPPORTED}.")
  return gemma_scope.read(file)
