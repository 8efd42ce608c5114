"""What one of several processes does for all of them."""

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxsae.errors import RunError, UserError

_BYTES = 4096  # of a message
_KINDS = (UserError, RunError)


def first(act: Callable[[], object]) -> bool:
  """Lets process 0 act; all go on when it is done, or fail as it failed.

  All processes must call it. What takes long should be cut into several calls,
  for the others wait in a collective operation, which has a limit in time.

  Returns:
    Whether what `act` returned in process 0 is true.

  Raises:
    UserError, RunError: `act` raised it, in process 0.
  """
  if jax.process_count() == 1:
    return bool(act())
  done, failed = False, None
  if jax.process_index() == 0:
    try:
      done = bool(act())
    except Exception as error:  # raised again below, when all know of it
      failed = error
  return _agree(done, failed)


def _agree(done: bool, failed: Exception | None) -> bool:
  is_user, is_failure, done, text = multihost_utils.broadcast_one_to_all(
    (
      isinstance(failed, UserError),
      failed is not None,
      done,
      _packed(str(failed)),
    )
  )
  if failed is not None:
    raise failed
  if is_failure:
    raise _KINDS[0 if is_user else 1](_unpacked(text))
  return bool(done)


def _packed(text: str) -> np.ndarray:
  data = text.encode()[:_BYTES]
  return np.frombuffer(data.ljust(_BYTES, b"\0"), np.uint8)


def _unpacked(text) -> str:
  return bytes(np.asarray(text)).rstrip(b"\0").decode(errors="replace")
