"""Retries requests to an object store whose errors are transient."""

import asyncio
import contextlib
import contextvars
import itertools
import random
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from jaxsae.errors import StorageError

T = TypeVar("T")

# Seconds.
PATIENCE = 300.0  # in which a request is tried again
FIRST, LONGEST = 0.5, 30.0  # the first pause, which doubles, and the longest
SILENT = 10.0  # after which somebody who watches is told

# By name, so that nothing is imported which may not be installed.
_TRANSIENT = {
  "builtins.TimeoutError",
  "builtins.ConnectionError",
  "aiohttp.client_exceptions.ClientError",
  "gcsfs.retry.ChecksumError",
  "requests.exceptions.ConnectionError",
  "requests.exceptions.Timeout",
  "requests.exceptions.ChunkedEncodingError",
  "requests.exceptions.ContentDecodingError",
  "google.auth.exceptions.RefreshError",
  "google.auth.exceptions.TransportError",
  "google.api_core.exceptions.ServerError",
  "google.api_core.exceptions.TooManyRequests",
  "google.api_core.exceptions.RetryError",
}
# What TensorStore's messages begin with when its own retries are used up.
_TENSORSTORE = re.compile(
  r"\b(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|RESOURCE_EXHAUSTED)\b"
)
# What a refused login says; the same request would be refused again.
_NEEDS_LOGIN = re.compile("invalid_grant|Reauthentication", re.IGNORECASE)

_patience: contextvars.ContextVar[float | None] = contextvars.ContextVar(
  "patience", default=None
)


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
  """Tries again for so long, in place of `PATIENCE`, within the block."""
  before = _patience.set(seconds)
  try:
    yield
  finally:
    _patience.reset(before)


async def retrying(try_once: Callable[[int], Awaitable[T]], where: str) -> T:
  """Returns what `try_once` does, which is called until it succeeds.

  Args:
    try_once: does the work; told how often it was called before.
    where: the place, for messages.

  Raises:
    StorageError: it failed with errors that may pass, for too long.
  """
  limit = _patience.get()
  limit = PATIENCE if limit is None else limit
  began, told = time.monotonic(), False
  for tries in itertools.count():
    try:
      return await try_once(tries)
    except Exception as error:
      if not is_transient(error):
        raise
      pause = min(LONGEST, FIRST * 2**tries) * random.uniform(0.5, 1.0)
      passed = time.monotonic() - began
      if passed + pause > limit:
        raise StorageError(
          f"{where} did not answer for {passed:.0f} s ({describe(error)});"
          " run the same command again to go on."
        ) from error
      if passed > SILENT and not told:
        told = True
        _tell(where, error, limit)
    await asyncio.sleep(pause)
  raise AssertionError  # itertools.count never ends


def tensorstore_retries() -> dict:
  """Returns TensorStore's setting for pauses that add up to `PATIENCE`."""
  total, tries = 0.0, 0
  while total < PATIENCE:
    total, tries = total + min(LONGEST, FIRST * 2**tries), tries + 1
  return {
    "max_retries": tries,
    "initial_delay": f"{FIRST}s",
    "max_delay": f"{LONGEST}s",
  }


def is_transient(error: BaseException) -> bool:
  """Returns whether the same request may succeed if it is tried again."""
  kinds = {f"{c.__module__}.{c.__qualname__}" for c in type(error).__mro__}
  if "gcsfs.retry.HttpError" in kinds:
    return _is_transient_status(getattr(error, "code", None), str(error))
  if isinstance(error, OSError) and str(error).startswith("Forbidden"):
    return "rateLimit" in str(error) or "rate limit" in str(error)
  return bool(kinds & _TRANSIENT) and not _NEEDS_LOGIN.search(str(error))


def failure_of(error: BaseException) -> StorageError | None:
  """Returns the failed store behind an error of another library, if any.

  Args:
    error: what a library raised that reads or writes a remote folder.
  """
  for one in _chain(error):
    if isinstance(one, StorageError):
      return one
    says = isinstance(one, ValueError) and _TENSORSTORE.search(str(one))
    if is_transient(one) or says:
      return StorageError(
        f"the store did not answer ({describe(one)}); run the same command"
        " again to go on."
      )
  return None


def describe(error: BaseException) -> str:
  """Returns an error as a few words on one line."""
  text = " ".join(str(error).split())[:200]
  return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _is_transient_status(code, text: str) -> bool:
  if code is None or not str(code).isdecimal():
    return False
  expired = int(code) == 401 and "Invalid Credentials" in text
  fails = int(code) >= 500 and int(code) != 501  # "not implemented"
  return int(code) in (408, 429) or fails or expired


def _chain(error: BaseException) -> Iterator[BaseException]:
  """Yields an error, its cause, the cause of that, and so on."""
  one: BaseException | None = error
  while one is not None:
    yield one
    one = one.__cause__ or one.__context__


def _tell(where: str, error: Exception, limit: float) -> None:
  print(
    f"note: {where} does not answer ({describe(error)}); trying for up to"
    f" {limit:.0f} s …",
    file=sys.stderr,
    flush=True,
  )
