"""Commands that run on workers by ssh, quoted for the remote shell.

They start in the worker's home folder. `setup` copies `host.py` and
`setup_host.sh` there; see `launch/host/`.
"""

import shlex
from collections.abc import Mapping, Sequence

# Without these, ssh would wait forever for a machine that is gone.
SSH_TIMEOUTS = (
  "--ssh-flag=-oConnectTimeout=30",
  "--ssh-flag=-oServerAliveInterval=30",
  "--ssh-flag=-oServerAliveCountMax=4",
)
FOLDER = ".jaxsae"  # on a worker, below its home
_HOST = ("python3", f"{FOLDER}/host.py")


def make_folder() -> str:
  """Returns the command that creates the folder that files are copied to."""
  return _line("mkdir", "-p", FOLDER)


def set_up() -> str:
  """Returns the command that unpacks the code and installs its requirements."""
  return _line("bash", f"{FOLDER}/setup_host.sh")


def start(
  run: str,
  attempt: int,
  workdir: str,
  env: Mapping[str, str],
  argv: Sequence[str],
) -> str:
  """Returns the command that starts a run and leaves it running.

  Args:
    run: its id.
    attempt: number of this start; the same number twice starts the run once.
    workdir: where its checkpoints are.
    env: environment variables.
    argv: the experiment's file and its flags.
  """
  variables = [f"--env={key}={value}" for key, value in env.items()]
  options = (f"--attempt={attempt}", f"--workdir={workdir}", *variables)
  return _line(*_HOST, "start", run, *options, "--", *argv)


def poll(run: str) -> str:
  """Returns the command that prints the state of a run as a line of JSON."""
  return _line(*_HOST, "poll", run)


def log(run: str, worker: int, offset: int) -> str:
  """Returns the command that prints one worker's log from a byte offset on."""
  return _line(*_HOST, "log", run, f"--worker={worker}", f"--offset={offset}")


def stop(run: str, kill: bool = False) -> str:
  """Returns the command that asks a run to save and exit, or kills it."""
  return _line(*_HOST, "stop", run, *["--kill"] * kill)


def _line(*argv: str) -> str:
  return shlex.join(argv)
