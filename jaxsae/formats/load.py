"""An autoencoder from disk, in whichever supported format it is."""

import pathlib

from jaxsae.errors import UserError
from jaxsae.formats import gemma_scope
from jaxsae.sae.model import Sae

SUPPORTED = "a Gemma Scope .npz file or a directory that holds params.npz"


def load_sae(path) -> Sae:
  """The autoencoder at `path`, ready for raw activations.

  A transcoder that Gemma Scope published reads activations that are not quite
  those of its site: see `gemma_scope.from_published`.

  Args:
    path: a Gemma Scope `.npz` file, or the directory with its `params.npz`.

  Raises:
    UserError: nothing is there, or nothing that can be read.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise UserError(f"{path} does not exist; give {SUPPORTED}.")
  file = path / gemma_scope.FILE if path.is_dir() else path
  if not file.is_file() or file.suffix != ".npz":
    raise UserError(f"{path} is not an autoencoder; give {SUPPORTED}.")
  return gemma_scope.read(file)
