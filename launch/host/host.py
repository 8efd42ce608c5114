"""Runs on each worker: checks it, starts a run, reports its state, stops it.

It is copied there and must work with the system's Python (3.8 or newer) and
nothing but `prepare.py`, which lies beside it. A run's folder is
~/.jaxsae/runs/RUN:

  job.json      what to run            process.json  who runs it
  log           what it printed        ended.json    its exit status
  stop          present if the run was asked to stop

Each verb prints its result as one line of JSON.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

if __package__:  # in a checkout
  from launch.host import prepare as preparation
else:  # on a worker, beside this file
  import prepare as preparation

HOME = pathlib.Path.home() / ".jaxsae"
SECRETS = HOME / "env"
STARTING = 15.0  # seconds for which `start` waits for the process
CHUNK = 1 << 18  # bytes of log at a time
METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/"
# A read from a store that has stalled fails and is tried again.
NETWORK_TIMEOUTS = {
  "TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "60",
  "TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES": "1024",
}
# The newest step in a bucket; run by the Python that also writes there.
NEWEST_STEP_SCRIPT = """
import sys
from etils import epath
folder = epath.Path(sys.argv[1]) / "checkpoints"
names = [p.name for p in folder.iterdir()] if folder.exists() else []
print(max([int(n) for n in names if n.isdecimal()], default=-1))
"""


def main(argv):
  """Carries out one verb; the status is 3 if another run is running."""
  options = parse(argv)
  folder = HOME / "runs" / options.run
  said = VERBS[options.verb](folder, options)
  if said is not None:
    print(json.dumps(said), flush=True)
  return 3 if said is not None and "busy" in said else 0


def prepare(folder, options):
  """Mounts the data disks, and runs the user's script once per machine."""
  problems = preparation.mount(options.disk)
  if options.script and not problems:
    wanted = job(folder, options, worker_number())
    variables = environment(wanted)
    venv = os.path.join(wanted["tree"], ".venv", "bin")
    variables["PATH"] = os.pathsep.join([venv, variables["PATH"]])
    problems = preparation.run_script(HOME, variables)
  return fitness(problems)


def check(folder, options):
  """Reports what this machine lacks for a run, and the code that it has."""
  wanted = job(folder, options, worker_number())
  problems = preparation.mount(options.disk)
  lacking, silent = preparation.check(
    wanted, environment(wanted), options.chips
  )
  code = pathlib.Path(wanted["tree"]).name
  return fitness(problems + lacking, silent=silent, code=code)


def fitness(problems, **more):
  """Returns the reply of `prepare` and `check`."""
  host = socket.gethostname()
  return dict(worker=worker_number(), host=host, problems=problems, **more)


def start(folder, options):
  """Starts the run, detached, unless a run is already running."""
  folder.mkdir(parents=True, exist_ok=True)
  worker = worker_number()
  busy = active_run()
  if busy is not None:
    again = busy == folder and read(folder / "job.json")["attempt"] == (
      options.attempt
    )
    return {"worker": worker, "started" if again else "busy": busy.name}
  write(folder / "job.json", job(folder, options, worker))
  for name in ("process.json", "ended.json", "stop"):
    (folder / name).unlink(missing_ok=True)
  process = detach(folder, options)
  end = time.monotonic() + STARTING
  over = False
  while not over and time.monotonic() < end:
    over = process is not None and process.poll() is not None
    if (folder / "process.json").exists():
      return {"worker": worker, "started": folder.name}
    time.sleep(0.02)
  return {
    "worker": worker,
    "host": socket.gethostname(),
    "failed": f"the run could not start\n{tail(folder / 'host.log')}",
  }


def work(folder, options):
  """Runs the job to its end and records its exit status."""
  job = read(folder / "job.json")
  with open(folder / "log", "ab") as log:
    begin = f"--- attempt {job['attempt']} on {socket.gethostname()} ---\n"
    log.write(begin.encode())
    log.flush()
    child = subprocess.Popen(
      job["argv"],
      cwd=job["tree"],
      env=environment(job),
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=log,
    )
  # A machine that shuts down tells this process; the run has to hear of it.
  signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
  who = [[pid, start_time(pid)] for pid in (child.pid, os.getpid())]
  write(folder / "process.json", who)
  status = child.wait()
  status = 128 - status if status < 0 else status
  write(folder / "ended.json", {"attempt": job["attempt"], "status": status})


def poll(folder, options):
  """Reports whether the run is running, ended, lost or absent, and its step."""
  said = {
    "worker": worker_number(),
    "state": "absent",
    "status": None,
    "step": None,
  }
  if not (folder / "job.json").exists():
    return said
  job = read(folder / "job.json")
  said["attempt"] = job["attempt"]
  said["stopped"] = (folder / "stop").exists()
  if said["worker"] == 0:
    said["step"] = newest_step(job)
  # In this order, because the run may end between the two, but not begin.
  running = is_running(folder)
  ended = (
    read(folder / "ended.json") if (folder / "ended.json").exists() else {}
  )
  if ended.get("attempt") == job["attempt"]:
    return dict(said, state="ended", status=ended["status"])
  return dict(said, state="running" if running else "lost")


def log(folder, options):
  """Returns the log from a byte offset on, and the next offset."""
  if options.worker != worker_number():
    return None
  file = folder / "log"
  size = file.stat().st_size if file.exists() else 0
  offset = options.offset if options.offset <= size else 0  # a new log
  data = b""
  if size:
    with open(file, "rb") as opened:
      opened.seek(offset)
      data = opened.read(CHUNK)
  text = data.decode("utf-8", "replace")
  return {"worker": options.worker, "offset": offset + len(data), "text": text}


def stop(folder, options):
  """Sends SIGTERM, on which a run saves a checkpoint; with --kill, SIGKILL."""
  if not folder.exists() or not is_running(folder):
    return {"worker": worker_number(), "stopping": False}
  if not options.kill:
    (folder / "stop").touch()
  pid, born = read(folder / "process.json")[0]
  if start_time(pid) == born:
    os.kill(pid, signal.SIGKILL if options.kill else signal.SIGTERM)
  end = time.monotonic() + STARTING * options.kill
  while is_running(folder) and time.monotonic() < end:
    time.sleep(0.05)
  return {"worker": worker_number(), "stopping": True}


def job(folder, options, worker):
  """Returns all of what to run, so that a later set-up does not change it."""
  tree = (HOME / "tree").resolve()
  return {
    "attempt": options.attempt,
    "workdir": options.workdir,
    "tree": str(tree),
    "argv": [str(tree / ".venv" / "bin" / "python"), *options.argv],
    "env": dict(item.split("=", 1) for item in options.env),
    "worker": worker,
  }


def environment(job):
  """Returns the run's environment, with secrets from a file on this machine."""
  return dict(
    os.environ,
    PYTHONUNBUFFERED="1",
    PYTHONPATH=job["tree"],
    **dict(NETWORK_TIMEOUTS, **pod_variables(), **secrets(), **job["env"]),
  )


def secrets():
  """Reads KEY=VALUE lines from ~/.jaxsae/env, which must be private."""
  if not SECRETS.exists():
    return {}
  if SECRETS.stat().st_mode & 0o077:
    sys.exit(f"{SECRETS} can be read by others; `chmod 600` it.")
  lines = SECRETS.read_text().splitlines()
  return dict(line.split("=", 1) for line in lines if "=" in line)


def pod_variables():
  """Returns the pod's variables where JAX cannot find them by itself.

  It reads `agent-worker-number`. Hosts of an instance group have `worker-id`
  in its place.
  """
  if "JAX_PROCESS_ID" in os.environ or metadata_value("agent-worker-number"):
    return {}
  mine, all_ = (
    metadata_value("worker-id"),
    metadata_value("worker-network-endpoints"),
  )
  if not mine or not all_:
    return {}
  hosts = [entry.split(":")[-1] for entry in all_.split(",")]
  return {
    "JAX_COORDINATOR_ADDRESS": f"{hosts[0]}:8482",
    "JAX_NUM_PROCESSES": str(len(hosts)),
    "JAX_PROCESS_ID": mine,
  }


def worker_number():
  """Returns the index of this worker in its slice, from 0."""
  for job in sorted((HOME / "runs").glob("*/job.json")):
    return read(job)["worker"]  # asking the metadata server is slow
  found = os.environ.get("JAX_PROCESS_ID") or metadata_value(
    "agent-worker-number"
  )
  return int(found or metadata_value("worker-id") or 0)


def metadata_value(key):
  """Returns a value of this machine from Google's metadata server, or ""."""
  if not pathlib.Path("/sys/class/dmi/id/product_name").exists():
    return ""
  product = pathlib.Path("/sys/class/dmi/id/product_name").read_text()
  if "Google" not in product:
    return ""
  import urllib.request  # slow to import, so only when needed

  asked = urllib.request.Request(
    METADATA + "attributes/" + key, headers={"Metadata-Flavor": "Google"}
  )
  try:
    with urllib.request.urlopen(asked, timeout=5) as answer:
      return answer.read().decode().strip()
  except OSError:  # it has no such key
    return ""


def newest_step(job):
  """Returns the newest step that was recorded, or None.

  It is None too if the files cannot be read, because the state of the run has
  to be reported anyway.
  """
  try:
    if "://" in job["workdir"]:
      return steps_in_bucket(job)
    run = pathlib.Path(job["workdir"])
    names = [path.name for path in run.glob("checkpoints/*")]
    steps = [int(name) for name in names if name.isdigit()]
    return max(steps + last_logged_step(run / "metrics.jsonl"), default=None)
  except (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    subprocess.SubprocessError,
  ):
    return None


def steps_in_bucket(job):
  """Returns the newest step in a remote folder, or None."""
  found = subprocess.run(
    [job["argv"][0], "-c", NEWEST_STEP_SCRIPT, job["workdir"]],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    timeout=120,
    check=True,
  )
  step = int(found.stdout)
  return step if step >= 0 else None


def last_logged_step(metrics):
  """Returns a list with the step of the last line, empty if there is none."""
  if not metrics.exists():
    return []
  with open(metrics, "rb") as file:
    file.seek(max(0, metrics.stat().st_size - 65536))
    lines = file.read().split(b"\n")[:-1]
  return [json.loads(lines[-1])["step"]] if lines else []


def detach(folder, options):
  """Starts a process that outlives the ssh session; None under systemd."""
  work = [sys.executable, os.path.abspath(__file__), "work", folder.name]
  with open(folder / "host.log", "wb") as out:
    if has_systemd():
      subprocess.run(
        systemd_command(folder.name, options.attempt) + work,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=out,
      )
      return None
    return subprocess.Popen(
      work,
      stdin=subprocess.DEVNULL,
      stdout=out,
      stderr=out,
      start_new_session=True,
    )


def has_systemd():
  """Returns whether systemd runs here and we may use it."""
  if not (shutil.which("sudo") and shutil.which("systemd-run")):
    return False
  asked = ["sudo", "-n", "systemctl", "show", "--property=Version"]
  null = subprocess.DEVNULL
  return subprocess.call(asked, stdin=null, stdout=null, stderr=null) == 0


def systemd_command(run, attempt):
  """Returns the command prefix that runs a program as a system service."""
  variables = [f"--setenv={k}={os.environ[k]}" for k in ("HOME", "PATH")]
  return [
    "sudo",
    "-n",
    "systemd-run",
    "--quiet",
    "--collect",
    f"--unit=jaxsae-{run}-{attempt}",
    f"--uid={os.getuid()}",
    "--property=KillMode=mixed",  # only the first process gets SIGTERM
    "--property=LimitMEMLOCK=infinity",  # libtpu pins memory
    "--property=LimitNOFILE=1048576",
    *variables,
  ]


def active_run():
  """Returns the folder of a run that is running on this machine, or None."""
  found = (HOME / "runs").glob("*/process.json")
  return next((x.parent for x in sorted(found) if is_running(x.parent)), None)


def is_running(folder):
  """Returns whether a process of the run is running."""
  if not (folder / "process.json").exists():
    return False
  return any(start_time(pid) == b for pid, b in read(folder / "process.json"))


def start_time(pid):
  """Returns a process's start time in ticks since boot; None if it ended."""
  try:
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
  except OSError:
    return None
  fields = text.rpartition(")")[2].split()
  return None if fields[0] == "Z" else int(fields[19])


def read(file):
  return json.loads(file.read_text())


def write(file, data):
  """Writes JSON atomically, readable by its owner only."""
  partial = file.with_name(file.name + ".partial")
  with open(os.open(partial, os.O_WRONLY | os.O_CREAT, 0o600), "w") as out:
    out.truncate()
    json.dump(data, out)
  os.replace(partial, file)


def tail(file):
  """Returns the last 500 characters of a file."""
  return file.read_text(errors="replace")[-500:] if file.exists() else ""


def parse(argv):
  """Parses the verb and its options; the experiment follows `--`."""
  at = argv.index("--") if "--" in argv else len(argv)
  parser = argparse.ArgumentParser(prog="host.py", allow_abbrev=False)
  parser.add_argument("verb", choices=VERBS)
  parser.add_argument("run")
  parser.add_argument("--attempt", type=int)
  parser.add_argument("--workdir")
  parser.add_argument("--env", action="append", default=[])
  parser.add_argument("--worker", type=int, default=0)
  parser.add_argument("--offset", type=int, default=0)
  parser.add_argument("--kill", action="store_true")
  parser.add_argument("--disk", action="append", default=[], type=pair)
  parser.add_argument("--script", action="store_true")
  parser.add_argument("--chips", type=int, default=0)
  options = parser.parse_args(argv[:at])
  options.argv = argv[at + 1 :]
  return options


def pair(text):
  """Splits DEVICE:FOLDER."""
  return text.split(":", 1)


VERBS = {
  "prepare": prepare,
  "check": check,
  "start": start,
  "work": work,
  "poll": poll,
  "log": log,
  "stop": stop,
}

if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
