"""Errors told in one sentence, without a traceback, and exit statuses."""

import contextlib
import difflib
import errno
import os
import signal
import sys
import traceback
import types
from collections.abc import Iterator, Sequence

from jaxsae import terminal

# A full or read-only disk raises these, from any library.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)

_CLOSED = 128 + signal.SIGPIPE  # exit status of one whose output is cut off
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
  status, and Ctrl-C with 130, as in a shell. Where nobody reads the output any
  more, as in `… | head -1`, it ends without a word. Every other exception is a
  bug and keeps its traceback.
  """
  terminal.survive()
  try:
    with _until_output_is_closed():
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


@contextlib.contextmanager
def _until_output_is_closed() -> Iterator[None]:
  """Ends the process in silence once nobody reads its output any more."""
  try:
    try:
      yield
    finally:
      if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()  # at exit, it would be too late
  except BrokenPipeError:
    if not _is_cut_off():
      raise  # it was another pipe
    # Python writes what is left when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(_CLOSED)


def _is_cut_off() -> bool:
  """Returns whether nobody reads the standard output."""
  try:
    sys.stdout.flush()
  except BrokenPipeError:
    return True
  return False


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
  """Lets SIGTERM end the process as an exception does, so that it cleans up.

  A second one ends it at once.
  """

  def end(number, _):
    signal.signal(number, signal.SIG_DFL)
    sys.exit(128 + number)

  before = signal.signal(signal.SIGTERM, end)
  try:
    yield
  finally:
    if signal.getsignal(signal.SIGTERM) is end:
      signal.signal(signal.SIGTERM, before)


def shorten_interrupted_imports() -> None:
  """Ends a program in one line if Ctrl-C comes while it imports modules."""
  before = sys.excepthook

  def hook(kind, error, trace):
    if issubclass(kind, KeyboardInterrupt) and _imports(trace):
      print("\ninterrupted", file=sys.stderr)
    else:
      before(kind, error, trace)

  sys.excepthook = hook


def _imports(trace: types.TracebackType | None) -> bool:
  """Returns whether a traceback passes through an import."""
  frames = (frame for frame, _ in traceback.walk_tb(trace))
  return any("importlib._bootstrap" in x.f_code.co_filename for x in frames)


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
