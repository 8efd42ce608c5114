"""The processes of a pod: how they meet, and what only one of them does.

Every host of a TPU pod runs the same command, and so does every process of a
pod that is played on one machine. All of them compute everything together; the
one that leads, process 0, also writes files and speaks. Without a pod there is
one process, and it leads.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxsae.errors import RunError, UserError

T = TypeVar("T")

# Where no cluster is found that JAX knows, a pod is described by these.
ADDRESS = "JAX_COORDINATOR_ADDRESS"  # host:port of process 0
COUNT = "JAX_NUM_PROCESSES"
INDEX = "JAX_PROCESS_ID"

# Seconds without a sign of life after which a process is lost, and the others
# end. JAX's own default is 100.
HEARTBEAT = 30
SHUTDOWN = 60  # seconds for which one that is done waits for the others


def join() -> None:
  """Joins the other processes, if there are any; before anything with JAX.

  A Cloud TPU pod, Slurm, Kubernetes and Open MPI are found as JAX finds them;
  elsewhere the environment says it in JAX_COORDINATOR_ADDRESS,
  JAX_NUM_PROCESSES and JAX_PROCESS_ID. Where neither says anything, or JAX is
  in use already, as in a notebook, this process stays alone.

  Raises:
    UserError: some of these are set and others are not, or are no numbers; or
      they are, and JAX is in use already.
    RunError: the others did not come in five minutes.
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
    # What JAX raises where it finds no cluster, and where it is in use.
    if ADDRESS in os.environ:
      raise UserError(
        f"{ADDRESS}={os.environ[ADDRESS]} is set, and this process can not join"
        f" that pod: {error}"
      ) from error


def is_leader() -> bool:
  """Whether this process is the one that writes and speaks."""
  return jax.process_index() == 0


def on_leader(act: Callable[[], T]) -> T:
  """What `act` returns in the process that leads, in all of them.

  All have to call this, and wait there. What takes long should be cut into
  several calls, for waiting has a limit in time.

  Args:
    act: called in the process that leads; returns JSON.

  Raises:
    UserError, RunError: `act` raised it. Anything else that it raises is a
      RunError in the other processes.
  """
  if jax.process_count() == 1:
    return act()
  outcome, failed = _outcome(act) if is_leader() else (None, None)
  value, kind, text = json.loads(gather_texts(json.dumps(outcome))[0])
  if failed is not None:
    raise failed
  if kind is not None:
    raise (UserError if kind == UserError.__name__ else RunError)(text)
  return value


@contextlib.contextmanager
def wait_out_lost_process():
  """Around what all processes do together: who is lost is named.

  A process that is lost shows first as a broken connection, of nobody knows
  whom. Within a heartbeat JAX ends all others, with a message that names it and
  a status (134) with which they are started again; until then we wait.
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if jax.process_count() > 1:
      print(f"a process was lost: {error}", file=sys.stderr, flush=True)
      time.sleep(2 * HEARTBEAT)
    raise


def gather_texts(text: str) -> list[str]:
  """The texts of all processes, in their order; all have to call this."""
  if jax.process_count() == 1:
    return [text]
  data = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(data.size))
  row = np.zeros(max(1, sizes.max()), np.uint8)  # all send as many bytes
  row[: data.size] = data
  rows = multihost_utils.process_allgather(row)
  return [
    bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)
  ]


def true_on_all(true: bool) -> bool:
  """Whether it is true in every process; all have to call this."""
  if jax.process_count() == 1:
    return true
  return bool(np.all(multihost_utils.process_allgather(np.bool_(true))))


def print_on_leader(*lines: str) -> None:
  """Prints, where this process leads."""
  if is_leader():
    print(*lines, sep="\n", flush=True)


def to_host(tree):
  """Arrays on any devices → whole in NumPy, in every process."""
  if jax.process_count() == 1:
    return jax.device_get(tree)
  return jax.tree.map(_whole, tree)


def _described() -> dict:
  """What the environment says of the pod, as JAX's arguments."""
  found = {name: os.environ.get(name) for name in (ADDRESS, COUNT, INDEX)}
  if found[COUNT] is None and found[INDEX] is None:
    return {}
  missing = [name for name, value in found.items() if value is None]
  if missing:
    raise UserError(
      f"{' and '.join(missing)} must be set as well as"
      f" {' and '.join(found.keys() - set(missing))}; set all three of"
      f" {ADDRESS}, {COUNT} and {INDEX}, or none."
    )
  described = {
    "coordinator_address": found[ADDRESS],
    "num_processes": _number(COUNT, found[COUNT]),
    "process_id": _number(INDEX, found[INDEX]),
    "cluster_detection_method": "deactivate",
  }
  if found[ADDRESS].startswith("127."):
    # By default it listens to every network, and asks nobody who they are.
    described["coordinator_bind_address"] = found[ADDRESS]
  return described


def _number(name: str, text: str) -> int:
  if not text.isdecimal():
    raise UserError(f"{name}={text} is not a number; set it to 0 or more.")
  return int(text)


def _outcome(act) -> tuple[tuple, Exception | None]:
  """What it returned, the kind and the text of what it raised; and that."""
  try:
    return (act(), None, None), None
  except Exception as error:  # raised when all know of it
    return (None, type(error).__name__, str(error)), error


def _whole(x):
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))
  return jax.device_get(x)
