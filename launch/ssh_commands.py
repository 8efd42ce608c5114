"""The commands that cross ssh: each is quoted for the shell at the other end.

They begin in the home of the worker. `host.py` and `setup_host.sh` are there
since `setup`; see `launch/host/`.
"""

import shlex
from collections.abc import Mapping, Sequence

# For ssh: a machine that is gone does not hold us for ever.
SSH_TIMEOUTS = (
  "--ssh-flag=-oConnectTimeout=30",
  "--ssh-flag=-oServerAliveInterval=30",
  "--ssh-flag=-oServerAliveCountMax=4",
)
FOLDER = ".jaxsae"  # on a worker, below its home
_HOST = ("python3", f"{FOLDER}/host.py")


def make_folder() -> str:
  """Makes the folder that files are copied to."""
  return _line("mkdir", "-p", FOLDER)


def set_up() -> str:
  """Unpacks the tree and installs what it needs."""
  return _line("bash", f"{FOLDER}/setup_host.sh")


def start(
  run: str,
  attempt: int,
  workdir: str,
  env: Mapping[str, str],
  argv: Sequence[str],
) -> str:
  """Starts a run and leaves it running.

  Args:
    run: its id.
    attempt: which start of it this is; the same twice is one start.
    workdir: where its checkpoints are.
    env: variables.
    argv: the experiment's file and its flags.
  """
  variables = [f"--env={key}={value}" for key, value in env.items()]
  options = (f"--attempt={attempt}", f"--workdir={workdir}", *variables)
  return _line(*_HOST, "start", run, *options, "--", *argv)


def poll(run: str) -> str:
  """Says in a line of JSON what the run is at."""
  return _line(*_HOST, "poll", run)


def log(run: str, worker: int, offset: int) -> str:
  """Says in a line of JSON what was logged from a byte on; only this worker."""
  return _line(*_HOST, "log", run, f"--worker={worker}", f"--offset={offset}")


def stop(run: str, kill: bool = False) -> str:
  """Asks the run to leave a checkpoint and end; or ends it at once."""
  return _line(*_HOST, "stop", run, *["--kill"] * kill)


def _line(*argv: str) -> str:
  return shlex.join(argv)
