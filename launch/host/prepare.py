"""Makes a machine ready for a run, and finds out what it lacks.

`host.py` uses it, beside which it is copied; it must work with the system's
Python (3.8 or newer) and nothing else. What is wrong is told as a list of
problems, one sentence each, without the full stop.
"""

import fcntl
import hashlib
import json
import pathlib
import shutil
import subprocess

DEVICES = pathlib.Path("/dev/disk/by-id")
PCI = pathlib.Path("/sys/bus/pci/devices")
LEAST_FREE = 2 << 30  # bytes, for tokenised text and logs
LONGEST_CHECK = 600  # seconds
RESTART = 42  # exit status of a program that asks to be started again
TAIL = 20  # lines of a script that failed
GOOGLE = "0x1ae0"
TPUS = {"0x0027", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076"}


def mount(disks):
  """Mounts data disks that are not mounted yet, and returns what failed.

  It is called before each start, so a machine that was rebooted has them too.

  Args:
    disks: pairs of a device, as it is called in /dev/disk/by-id, and a folder.
  """
  problems = []
  for device, folder in disks:
    if run(["mountpoint", "-q", folder])[0] == 0:
      continue
    root = ["sudo", "-n"]
    status, said = run([*root, "mkdir", "-p", folder])
    if status == 0:
      attach = ["mount", "-o", "ro", str(DEVICES / device), folder]
      status, said = run([*root, *attach])
    # A call after a lost connection may have come first.
    if status != 0 and run(["mountpoint", "-q", folder])[0] != 0:
      problems.append(
        f"the disk of {folder} cannot be mounted: {last_line(said)} (it must"
        " have a file system, unmounted before it was detached; /dev/disk/by-id"
        f" has {', '.join(devices()) or 'no disk of Google'})"
      )
  return problems


def devices():
  """Returns the names of the disks that are attached."""
  return sorted(path.name for path in DEVICES.glob("google-*"))


def run_script(home, environment):
  """Runs the user's script unless it has succeeded here; returns what failed.

  Args:
    home: the folder with the file `script`, and its log.
    environment: its environment variables.
  """
  script, done = home / "script", home / "script.done"
  digest = hashlib.sha256(script.read_bytes()).hexdigest()
  with open(home / "script.lock", "w") as lock:
    # A second call, after a lost connection, waits for the first.
    fcntl.flock(lock, fcntl.LOCK_EX)
    if done.exists() and done.read_text() == digest:
      return []
    status = _run_script(script, environment)
    if status == 0:
      done.write_text(digest)
      return []
  tail = _log(script).read_text(errors="replace").splitlines()[-TAIL:]
  lines = [f"  {line}" for line in tail] or ["  no output"]
  return ["\n".join([f"the script ended with status {status}", *lines])]


def _run_script(script, environment):
  """Runs a script with its own interpreter, or with bash if it names none."""
  named = script.read_bytes().startswith(b"#!")
  script.chmod(0o700)
  with open(_log(script), "wb") as log:
    return subprocess.call(
      [str(script)] if named else ["bash", str(script)],
      cwd=str(pathlib.Path.home()),
      env=environment,
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
    )


def _log(script):
  return script.with_name("script.log")


def check(job, environment, chips):
  """Returns what this machine lacks for a run, and which bucket is silent.

  Args:
    job: what to run; see `host.job`.
    environment: its environment variables.
    chips: number of TPU chips that the machine should have.

  Returns:
    A list of problems, and why the bucket does not answer; None if it does.
  """
  tree = pathlib.Path(job["tree"])
  if not (tree / ".venv").exists():
    return ["the machine has no code; run `python -m launch setup`"], None
  problems = [] if on_cpu(environment) else missing_chips(chips)
  free = shutil.disk_usage(str(tree)).free
  if free < LEAST_FREE:
    problems.append(
      f"only {free / 1e9:.1f} GB of {tree} are free, of the"
      f" {LEAST_FREE / 1e9:.1f} GB that a run needs"
    )
  places, silent = missing_places(job, tree, environment)
  return problems + places, silent


def missing_places(job, tree, environment):
  """Returns the paths of the run's settings that this machine cannot read.

  The run's own code knows which they are; see `jaxsae/runs/check.py`. Older
  code has no such file, and is not asked.

  Returns:
    A list of problems, and why the bucket does not answer; None if it does.
  """
  if not (tree / "jaxsae" / "runs" / "check.py").exists():
    return [], None
  python, *flags = job["argv"]
  # The chips are left alone: another run may hold them.
  quiet = dict(environment, JAX_PLATFORMS="cpu")
  status, said = run(
    [python, "-m", "jaxsae.runs.check", *flags],
    cwd=str(tree),
    env=quiet,
    timeout=LONGEST_CHECK,
  )
  if status == RESTART:
    return [], last_line(said)
  if status != 0:
    return [last_line(said)], None
  return json.loads(said.strip().splitlines()[-1]), None


def missing_chips(expected):
  """Returns a problem if fewer TPU chips are attached than expected."""
  found = 0
  for device in PCI.glob("*"):
    if (device / "vendor").read_text().strip() == GOOGLE:
      found += (device / "device").read_text().strip() in TPUS
  if found >= expected:
    return []
  return [f"only {found} of {expected} TPU chips are attached"]


def on_cpu(environment):
  """Returns whether a run is told to use no TPU."""
  return environment.get("JAX_PLATFORMS") == "cpu"


def run(argv, timeout=60, **options):
  """Runs a program; returns its status and what it said, errors last."""
  try:
    done = subprocess.run(
      argv,
      stdin=subprocess.DEVNULL,
      capture_output=True,
      timeout=timeout,
      **options,
    )
  except FileNotFoundError:
    return 127, f"{argv[0]} is not installed"
  except subprocess.TimeoutExpired:
    return 124, f"{argv[0]} did not answer within {timeout} s"
  said = done.stdout if done.returncode == 0 else done.stdout + done.stderr
  return done.returncode, said.decode("utf-8", "replace")


def last_line(text):
  """Returns the last line of a text, without "error:" and its full stop."""
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  line = lines[-1] if lines else "it gave no reason"
  return line.split("error: ", 1)[-1].rstrip(".")[:500]
