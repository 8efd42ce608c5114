"""Errors told in one sentence, without a traceback, and exit statuses."""

import contextlib
import difflib
import errno
import sys
from collections.abc import Iterator, Sequence

# A full or read-only disk raises these, from any library.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
# What the system says of a file by itself, whoever asks and however often.
_OF_FILE = (
  *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO),
  *(errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EINVAL),
)

RESTART = 42  # exit status that means "start me again", as after a preemption


class UserError(ValueError):
  """A mistake in what the user asked for; its text is one sentence.

  The sentence names the value, the place and what to type instead. Entry
  points print it without a traceback and exit with status 2.
  """


class RunError(RuntimeError):
  """A run cannot go on, though nothing that the user asked for is wrong.

  Its text says what happened and how to go on. Entry points print it without
  a traceback and exit with its status: 1, as after any failure.
  """

  status = 1


class StorageError(RunError):
  """A store did not answer for as long as `jaxsae.storage` waits for it.

  Nothing is wrong with the run, so whoever launched it starts it again.
  """

  status = RESTART


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
  """Turns a `UserError` from an entry point into one line and exit status 2.

  Works as `with exit_on_user_error():` and as `@exit_on_user_error()`. A disk
  that is full or not writable ends the same way, a `RunError` with its own
  status, and Ctrl-C with 130, as in a shell; every other exception is a bug and
  keeps its traceback.
  """
  try:
    yield
  except UserError as error:
    _exit(str(error))
  except RunError as error:
    _exit(str(error), status=error.status)
  except KeyboardInterrupt:
    print("\ninterrupted; the same command goes on", file=sys.stderr)
    sys.exit(130)
  except OSError as error:
    if error.errno not in _DISK:
      raise
    place = f"{error.filename}: " if error.filename else ""
    _exit(f"{place}{error.strerror}; free it or choose another directory")


def is_of_file(error: OSError) -> bool:
  """Returns whether an error is about the file that was to be read.

  Otherwise it is about this machine or its storage, and says nothing about what
  the file holds: too many open files, no memory, a disk or server that fails.
  """
  return error.errno in _OF_FILE


def did_you_mean(name: str, names: Sequence[str], prefix: str = "") -> str:
  """Returns "did you mean X?", or "" where none of `names` is close to `name`.

  A name is close if it is spelled alike, or if its last dotted part is the
  same.

  Args:
    name: what was typed.
    names: what could have been meant.
    prefix: written before X, such as `--`.
  """
  last = name.rpartition(".")[2]
  near = difflib.get_close_matches(name, names, 1)
  near += [other for other in names if other.rpartition(".")[2] == last]
  return f"did you mean {prefix}{near[0]}?" if near else ""


def first_few(
  items: Sequence[str], count: int = 3, separator: str = ", "
) -> str:
  """Lists the first `count` items, and how many more there are."""
  listed = separator.join(items[:count])
  more = len(items) - count
  if more <= 0:
    return listed
  return f"{listed}{separator.strip(', ')} and {more} more"


def _exit(sentence: str, status: int = 2) -> None:
  print(f"error: {sentence}", file=sys.stderr)
  sys.exit(status)
