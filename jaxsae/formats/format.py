"""The interface that every file format of autoencoders implements."""

import os
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxsae.errors import UserError
from jaxsae.formats.published import Published

Path = str | os.PathLike[str]


class ReadOnly:
  """The half of a format that says that nothing is written in it."""

  name: str

  def check(self, published: Published) -> None:
    """Raises UserError."""
    raise self._refusal()

  def write(self, published: Published, path: Path) -> None:
    """Raises UserError."""
    raise self._refusal()

  def place(self, published: Published) -> str:
    """Raises UserError."""
    raise self._refusal()

  def _refusal(self) -> UserError:
    return UserError(
      f"Autoencoders are only read in the format {self.name}, not written; use"
      " another --format."
    )


class Format(Protocol):
  """A file format of published autoencoders, read and written.

  Attributes:
    name: its key in `FORMATS`, and the value of `--format`.
    accepts: the files that `read` takes, in words that follow "give".
  """

  name: str
  accepts: str

  def matches(self, path: Path) -> bool:
    """Returns whether a file or folder looks like this format.

    A damaged file matches too, so that `read` can say what is wrong with it.
    Looks at names and headers only, loads no array, and never raises.
    """
    ...

  def read(self, path: Path) -> Published:
    """Reads an autoencoder from a file or folder that is not trusted.

    Raises:
      UserError: the file is damaged or is another format; names the file and
        the array.
    """
    ...

  def check(self, published: Published) -> None:
    """Raises UserError if the format cannot hold an autoencoder.

    Looks at shapes and facts alone, so the arrays may be abstract.
    """
    ...

  def write(self, published: Published, path: Path) -> None:
    """Writes an autoencoder into a folder, all of its files or none.

    Args:
      published: the autoencoder.
      path: the folder; it is made if it does not exist.

    Raises:
      UserError: a file is already there or cannot be written, or the format
        cannot hold the autoencoder.
    """
    ...

  def place(self, published: Published) -> str:
    """Returns the folder of an autoencoder, relative to its release.

    Raises:
      UserError: the record lacks a field that the folder is named after.
    """
    ...


@runtime_checkable
class WholeSet(Protocol):
  """A format whose autoencoders belong together and lie in one folder.

  It is a `Format` too; its `write` makes the files of one autoencoder, and what
  they share if it is not there.
  """

  def check_set(self, records: Sequence[Published]) -> None:
    """Raises UserError unless autoencoders are a set.

    Looks at shapes and facts alone, so the arrays may be abstract.
    """
    ...
