"""Finds the cause of Orbax's errors, and silences its other output."""

import functools
import gc
import logging
import re
import sys
import traceback

import jax


def cause_of(error: Exception) -> str:
  """Returns the innermost cause of Orbax's error as one line.

  Raises:
    JaxRuntimeError: the cause is one, such as a full device.
  """
  chain: list[BaseException] = [error]
  while chain[-1].__cause__ is not None:
    chain.append(chain[-1].__cause__)
  if isinstance(chain[-1], jax.errors.JaxRuntimeError):
    raise chain[-1]
  _drop_other_failures(chain)
  reason = re.split(
    r"\n| \[tensorstore_spec| \[os_error", str(chain[-1]).strip()
  )[0]
  return reason or type(chain[-1]).__name__


@functools.cache
def ignore_abandoned_reads() -> None:
  """Silences reads that are abandoned when one fails; call it before reading.

  Orbax closes the loop in which it awaits them all, so the others end in
  errors that nothing can catch, and Python prints a traceback for each.
  """
  before = sys.unraisablehook

  def hook(unraisable) -> None:
    if not _is_abandoned_read(unraisable):
      before(unraisable)

  sys.unraisablehook = hook


def ignore_tracebacks() -> None:
  """Silences tracebacks of errors that Orbax's threads log and also raise."""
  logging.getLogger("absl").addFilter(_is_no_traceback)


def _is_no_traceback(record: logging.LogRecord) -> bool:
  return record.exc_info is None or "orbax" not in record.pathname


def _is_abandoned_read(unraisable) -> bool:
  if str(unraisable.exc_value) == "Event loop is closed":
    return True  # from TensorStore's threads, without an object
  code = getattr(unraisable.object, "cr_code", None)
  return code is not None and "orbax" in code.co_filename


def _drop_other_failures(chain: list[BaseException]) -> None:
  """Collects Orbax's other failed reads without printing their errors.

  It awaits them together and looks at the first failure only; asyncio prints
  a traceback for each of the others when it is collected.
  """
  logger = logging.getLogger("asyncio")
  was_disabled, logger.disabled = logger.disabled, True
  for error in chain:
    traceback.clear_frames(error.__traceback__)
  gc.collect()
  logger.disabled = was_disabled
