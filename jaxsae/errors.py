"""Errors told in one sentence, without a traceback, and exit statuses."""

import contextlib
import difflib
import errno
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TextIO

from jaxsae import terminal

# A full or read-only disk raises these, from any library.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
# What the system says of a file by itself, whoever asks and however often.
_OF_FILE = (
  *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO),
  *(errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EINVAL),
)

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
  output = sys.stdout
  try:
    try:
      yield
    finally:
      if output is not None and not output.closed:
        output.flush()  # at exit, it would be too late
  except BrokenPipeError:
    if output is None or not _is_cut_off(output):
      raise  # it was another pipe
    # Python writes what is left when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
    sys.exit(_CLOSED)


def _is_cut_off(output: TextIO) -> bool:
  """Returns whether nobody reads an output."""
  try:
    descriptor = output.fileno()
  except (OSError, ValueError):  # it is no file, or closed
    return False
  asked = select.poll()
  asked.register(descriptor, 0)
  return bool(asked.poll(0))


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


@contextlib.contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
  """Lets Ctrl-C end the program at once, for imports that take seconds.

  As an exception, it would be raised in the middle of a library, which may show
  a long traceback, or go on without what it was importing. Where a person types
  commands one by one, as in a notebook, Ctrl-C stays an exception.
  """
  typed = hasattr(sys, "ps1") or "IPython" in sys.modules
  main = threading.current_thread() is threading.main_thread()
  usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
  if typed or not main or not usual:
    yield
    return
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
