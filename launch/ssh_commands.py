"""Commands that run on workers by ssh, quoted for the remote shell.

They start in the worker's home folder. `setup` copies the files of
`launch/host/` there.
"""

import shlex
from collections.abc import Sequence

from launch.ledger import Run

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


def prepare(disks: Sequence[tuple[str, str]], script: bool) -> str:
  """Returns the command that mounts data disks and runs the user's script.

  Args:
    disks: the device and the folder of each.
    script: whether a script was copied.
  """
  return _line(*_HOST, "prepare", "-", *_disks(disks), *["--script"] * script)


def check(run: Run, disks: Sequence[tuple[str, str]], chips: int) -> str:
  """Returns the command that finds out what a worker lacks for a run.

  Args:
    run: the run.
    disks: the device and the folder of each data disk.
    chips: number of TPU chips that the worker should have.
  """
  options = (f"--chips={chips}", *_disks(disks))
  return _line(*_HOST, "check", run.id, *options, *_job(run))


def start(run: Run, attempt: int) -> str:
  """Returns the command that starts a run and leaves it running.

  Args:
    run: the run.
    attempt: number of this start; the same number twice starts the run once.
  """
  return _line(*_HOST, "start", run.id, f"--attempt={attempt}", *_job(run))


def poll(run: str) -> str:
  """Returns the command that prints the state of a run as a line of JSON."""
  return _line(*_HOST, "poll", run)


def log(run: str, worker: int, offset: int) -> str:
  """Returns the command that prints one worker's log from a byte offset on."""
  return _line(*_HOST, "log", run, f"--worker={worker}", f"--offset={offset}")


def stop(run: str, kill: bool = False) -> str:
  """Returns the command that asks a run to save and exit, or kills it."""
  return _line(*_HOST, "stop", run, *["--kill"] * kill)


def _job(run: Run) -> list[str]:
  """Returns the words that tell a worker what to run."""
  variables = [f"--env={key}={value}" for key, value in run.env.items()]
  return [f"--workdir={run.workdir}", *variables, "--", *run.argv]


def _disks(disks: Sequence[tuple[str, str]]) -> list[str]:
  return [f"--disk={device}:{folder}" for device, folder in disks]


def _line(*argv: str) -> str:
  return shlex.join(argv)
