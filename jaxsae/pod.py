"""The processes of a pod: how they meet, and what only the leader does.

Every host of a TPU pod runs the same command, and so does every process of a
pod simulated on one machine. They compute everything together; the leader,
process 0, also writes files and prints. Without a pod there is one process,
which is the leader.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxsae import terminal
from jaxsae.errors import RunError, StorageError, UserError

T = TypeVar("T")

# These describe a pod where JAX detects no cluster.
ADDRESS = "JAX_COORDINATOR_ADDRESS"  # host:port of process 0
COUNT = "JAX_NUM_PROCESSES"
INDEX = "JAX_PROCESS_ID"

# Seconds without a heartbeat after which a process counts as lost, and the
# others end. JAX's own default is 100.
HEARTBEAT = 30
SHUTDOWN = 60  # seconds that a finished process waits for the others

# Errors of the leader that are raised as they are in the other processes.
_KINDS = {kind.__name__: kind for kind in (UserError, StorageError)}


def join() -> None:
  """Joins the other processes, if any; call it before any other use of JAX.

  JAX detects a Cloud TPU pod, Slurm, Kubernetes and Open MPI by itself;
  elsewhere, set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
  If there is neither, or JAX is already in use, as in a notebook, this process
  stays alone.

  Raises:
    UserError: only some of these variables are set, or one that should be a
      number is not; or they are set and JAX is already in use.
    RunError: the other processes did not join within five minutes.
  """
  if jax.distributed.is_initialized():
    return
  described = _described()
  try:
    jax.distributed.initialize(
      **described,
      heartbeat_timeout_seconds=HEARTBEAT,
      shutdown_timeout_seconds=SHUTDOWN,
    )
  except jax.errors.JaxRuntimeError as error:
    raise RunError(f"the processes of the pod did not meet: {error}") from error
  except (ValueError, RuntimeError) as error:
    # JAX raises these if it finds no cluster, or if it is already in use.
    if ADDRESS in os.environ:
      raise UserError(
        f"{ADDRESS}={os.environ[ADDRESS]} is set, and this process cannot join"
        f" that pod: {error}"
      ) from error


def is_leader() -> bool:
  """Returns whether this process is the one that writes files and prints."""
  return jax.process_index() == 0


def on_leader(act: Callable[[], T]) -> T:
  """Calls `act` in the leader and returns its value in all processes.

  All processes must call this, and they wait here for the leader. Split long
  work into several calls: waiting has a time limit.

  Args:
    act: called in the leader only; returns a value that JSON can hold.

  Raises:
    UserError, RunError, StorageError: `act` raised it. Any other exception
      becomes a RunError in the other processes.
  """
  if jax.process_count() == 1:
    return act()
  outcome, failed = _outcome(act) if is_leader() else (None, None)
  value, kind, text = json.loads(gather_texts(json.dumps(outcome))[0])
  if failed is not None:
    raise failed
  if kind is not None:
    raise _KINDS.get(kind, RunError)(text)
  return value


def on_all(act: Callable[[], T]) -> T:
  """Calls `act` in every process, and fails in all if it fails in one.

  Otherwise the others would wait for the one that failed. All processes must
  call this, and each gets its own value.

  Args:
    act: must not wait for other processes.

  Raises:
    UserError, RunError: `act` raised it in some process. Any other exception
      becomes a RunError in the other processes.
  """
  if jax.process_count() == 1:
    return act()
  (value, *failure), failed = _outcome(act)
  texts = gather_texts(json.dumps(failure))
  if failed is not None:
    raise failed
  for index, (kind, text) in enumerate(map(json.loads, texts)):
    if kind is not None:
      raise _KINDS.get(kind, RunError)(f"in process {index}: {text}")
  return value


@contextlib.contextmanager
def wait_out_lost_process() -> Iterator[None]:
  """After another process is lost, waits until JAX ends this one.

  A lost process first shows as a broken connection that does not tell which
  process it was. Within a heartbeat JAX ends all others, with a message that
  names it and a status (134) with which they are started again.
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if jax.process_count() > 1:
      print(f"a process was lost: {error}", file=sys.stderr, flush=True)
      time.sleep(2 * HEARTBEAT)
    raise


def gather_texts(text: str) -> list[str]:
  """Returns the texts of all processes, in order; all must call this."""
  if jax.process_count() == 1:
    return [text]
  data = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(data.size))
  row = np.zeros(max(1, sizes.max()), np.uint8)  # all must send the same size
  row[: data.size] = data
  rows = multihost_utils.process_allgather(row)
  return [
    bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)
  ]


def true_on_all(true: bool) -> bool:
  """Returns whether `true` is true in every process; all must call this."""
  if jax.process_count() == 1:
    return true
  return bool(np.all(multihost_utils.process_allgather(np.bool_(true))))


def print_on_leader(*lines: str) -> None:
  """Prints the lines if this process is the leader."""
  if lines and is_leader():
    terminal.survive()
    print(*lines, sep="\n", flush=True)


def to_host(tree: Any) -> Any:
  """Copies arrays on any devices, whole, to NumPy in every process."""
  if jax.process_count() == 1:
    return jax.device_get(tree)
  return jax.tree.map(_whole, tree)


def _described() -> dict:
  """Reads the pod from the environment, as arguments of JAX's initialize."""
  names = (ADDRESS, COUNT, INDEX)
  found = {name: os.environ[name] for name in names if name in os.environ}
  if COUNT not in found and INDEX not in found:
    return {}
  missing = [name for name in names if name not in found]
  if missing:
    raise UserError(
      f"{' and '.join(missing)} must be set as well as"
      f" {' and '.join(found)}; set all three of"
      f" {ADDRESS}, {COUNT} and {INDEX}, or none."
    )
  described = {
    "coordinator_address": found[ADDRESS],
    "num_processes": _number(COUNT, found[COUNT]),
    "process_id": _number(INDEX, found[INDEX]),
    "cluster_detection_method": "deactivate",
  }
  if found[ADDRESS].startswith("127."):
    # By default it listens on every network, without authentication.
    described["coordinator_bind_address"] = found[ADDRESS]
  return described


def _number(name: str, text: str) -> int:
  if not text.isdecimal():
    raise UserError(f"{name}={text} is not a number; set it to 0 or more.")
  return int(text)


def _outcome(act) -> tuple[tuple, Exception | None]:
  """Returns (value, type and text of the exception), and the exception."""
  try:
    return (act(), None, None), None
  except Exception as error:  # raised once all know of it
    return (None, type(error).__name__, str(error)), error


def _whole(x):
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))
  return jax.device_get(x)
