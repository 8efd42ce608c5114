"""A fake `gcloud`: its cloud is a folder, its workers are real processes.

A worker is a folder that is its home, and what is sent to it by ssh runs here
as a process, with nothing on its PATH but the folder `bin`. Its processes find
each other as members of one pod on loopback. A mounted data disk is a link to
the folder of the disk. With its machine, a worker loses its home, its mounts
and the folder `local`.

It knows the commands that `launch` uses and refuses all others. The folder is
in FAKE_GCLOUD:

  cloud.json    what there is              calls.jsonl  what was asked
  faults.json   what goes wrong next       homes/       of the workers
"""

import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

HOSTS = {"v5litepod-8": 1, "v5p-16": 2, "v5p-8": 1, "v6e-16": 4}


def main(argv):
  cloud = Cloud(os.environ["FAKE_GCLOUD"])
  cloud.note(argv)
  words = [word for word in argv if not word.startswith("-")]
  if words[0] == "alpha":
    words = words[1:]
  for names, act in COMMANDS.items():
    if tuple(words[: len(names)]) == names:
      return act(cloud, words[len(names) :], flags(argv))
  return fail(f"invalid choice: {' '.join(words)}", 2)


def flags(argv):
  """Parses --a-b=c as {a_b: c}, and the disks, which may be several."""
  found = [word[2:].partition("=") for word in argv if word.startswith("--")]
  named = {k.replace("-", "_"): v for k, _, v in found}
  disks = [v for k, _, v in found if k == "data-disk"]
  return argparse.Namespace(**named | {"data_disks": disks})


class Cloud:
  """The folder that is the cloud, as the fake and the tests use it."""

  def __init__(self, folder):
    self.folder = pathlib.Path(folder)
    self.folder.mkdir(exist_ok=True)
    self.local.mkdir(exist_ok=True)

  @contextlib.contextmanager
  def open(self):
    """Yields the contents of the cloud, to read and to change."""
    with open(self.folder / "lock", "w") as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      file = self.folder / "cloud.json"
      data = json.loads(file.read_text()) if file.exists() else {}
      for kind in ("nodes", "queued", "groups", "parts"):
        data.setdefault(kind, {})
      data.setdefault("made", 0)
      yield data
      file.write_text(json.dumps(data, indent=1))

  def note(self, argv):
    with open(self.folder / "calls.jsonl", "a") as calls:
      calls.write(json.dumps(argv) + "\n")

  @property
  def calls(self):
    """Returns all calls so far, each as a list of words."""
    file = self.folder / "calls.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]

  def fail_next(self, kind, *faults):
    """Makes the next calls of a kind fail, each with a status and a message."""
    file = self.folder / "faults.json"
    data = json.loads(file.read_text()) if file.exists() else {}
    data.setdefault(kind, []).extend(faults)
    file.write_text(json.dumps(data))

  def fault(self, kind):
    """Returns and removes the next fault of a kind; None if there is none."""
    file = self.folder / "faults.json"
    data = json.loads(file.read_text()) if file.exists() else {}
    if not data.get(kind):
      return None
    found = data[kind].pop(0)
    file.write_text(json.dumps(data))
    return found

  def home(self, name, worker=0):
    with self.open() as data:
      made = data["nodes"][name]["made"]
    return self.folder / "homes" / f"{name}.{made}" / f"worker-{worker}"

  @property
  def local(self):
    """A folder on the disks of all machines, which are lost with them."""
    return self.folder / "local"

  def add_disk(self, name, folder):
    """Makes a data disk that has the files of a folder."""
    disks = self.folder / "disks"
    disks.mkdir(exist_ok=True)
    (disks / name).symlink_to(folder)

  def preempt(self, name, state="PREEMPTED"):
    """Removes a slice, with its processes and its disks."""
    with self.open() as data:
      node = data["nodes"][name]
      node["state"] = state
      for queued in data["queued"].values():
        if name in queued["nodes"]:
          queued["state"] = "SUSPENDED"
      self.lose(name, node)  # before anybody sees the new state

  def reboot(self, name):
    """Ends the processes of a slice and unmounts its data disks."""
    with self.open() as data:
      node = data["nodes"][name]
    end(self.machine(name, node))
    self.unmount(name, node)

  def unmount(self, name, node):
    mounts = self.mounts(name, node)
    for folder in mounts.read_text().splitlines() if mounts.exists() else []:
      pathlib.Path(folder).unlink(missing_ok=True)

  def mounts(self, name, node):
    """The file that lists where a slice's data disks are mounted."""
    return self.folder / "homes" / f"{name}.{node['made']}" / "mounts"

  def lose(self, name, node):
    """Takes a slice's processes and everything on its own disks."""
    end(self.machine(name, node))
    self.unmount(name, node)
    homes = self.folder / "homes" / f"{name}.{node['made']}"
    shutil.rmtree(homes, ignore_errors=True)
    shutil.rmtree(self.local, ignore_errors=True)
    self.local.mkdir(exist_ok=True)

  def machine(self, name, node) -> str:
    """Returns a name for the machine that no other machine has had."""
    return f"{self.folder}/{name}.{node['made']}"

  def end(self):
    """Kills the processes of all workers."""
    with self.open() as data:
      for name, node in data["nodes"].items():
        end(self.machine(name, node))


def end(machine):
  """Kills the processes of a machine at once, like a power cut."""
  mark = f"FAKE_MACHINE={machine}".encode()
  for process in pathlib.Path("/proc").iterdir():
    with contextlib.suppress(OSError, ValueError):
      if mark in (process / "environ").read_bytes().split(b"\0"):
        os.kill(int(process.name), signal.SIGKILL)


def fail(text, status=1):
  print(f"ERROR: (gcloud.fake) {text}", file=sys.stderr)
  return status


def missing(kind, name):
  return fail(f"NOT_FOUND: Resource 'projects/p/{kind}/{name}' was not found")


def new_node(data, options):
  data["made"] += 1
  return {
    "state": "CREATING",
    "zone": options.zone,
    "hosts": HOSTS[options.accelerator_type],
    "labels": dict([options.labels.split("=")]),
    "disks": [disk_name(text) for text in options.data_disks],
    "port": free_port(),
    "made": data["made"],
    "boot": 0,
  }


def disk_name(text):
  """Returns the name in source=projects/P/zones/Z/disks/NAME,mode=read-only."""
  source, mode = text.removeprefix("source=").split(",")
  assert mode == "mode=read-only", text
  assert source.count("/") == 5, text
  return source.rpartition("/")[2]


def missing_disk(cloud, options):
  """Returns the error for a disk that does not exist; None if all do."""
  for name in map(disk_name, options.data_disks):
    if not (cloud.folder / "disks" / name).exists():
      return missing("disks", name)
  return None


def create(cloud, names, options):
  fault = cloud.fault("create")
  if fault:
    return fail(fault[1], fault[0])
  if missing_disk(cloud, options):
    return 1
  with cloud.open() as data:
    if names[0] in data["nodes"]:
      return fail(f"ALREADY_EXISTS: Resource '{names[0]}' already exists")
    node = new_node(data, options)
    node["boot"] = cloud.fault("boot") or 0
    data["nodes"][names[0]] = node
  return 0


def describe(cloud, names, options):
  with cloud.open() as data:
    node = data["nodes"].get(names[0])
    if node is None:
      return missing("nodes", names[0])
    boot(node)
    print(json.dumps(shown(names[0], node)))
  return 0


def boot(node):
  """Makes a slice ready after it was described often enough."""
  if node["state"] == "CREATING":
    node["state"] = "READY" if node["boot"] <= 0 else "CREATING"
    node["boot"] -= 1


def shown(name, node):
  place = f"projects/p/locations/{node['zone']}/nodes/{name}"
  return {"name": place, "state": node["state"], "labels": node["labels"]}


def delete(cloud, names, options):
  fault = cloud.fault("delete")
  if fault:
    return fail(fault[1], fault[0])
  with cloud.open() as data:
    node = data["nodes"].pop(names[0], None)
    if node is None:
      return missing("nodes", names[0])
    cloud.lose(names[0], node)
  return 0


def list_nodes(cloud, names, options):
  with cloud.open() as data:
    print(json.dumps([shown(*item) for item in data["nodes"].items()]))
  return 0


def ssh(cloud, names, options):
  fault = cloud.fault("ssh")
  if fault:
    return fail(fault[1], fault[0])
  with cloud.open() as data:
    node = data["nodes"].get(names[0])
    if node is None:
      return missing("nodes", names[0])
    if node["state"] != "READY":
      return fail(f"the node is {node['state']}")
  workers = range(node["hosts"])
  if options.worker != "all":
    workers = [int(options.worker)]
  processes = [send(cloud, names[0], node, i, options.command) for i in workers]
  statuses = [process.wait() for process in processes]
  return next((status for status in statuses if status), 0)


def send(cloud, name, node, worker, command):
  home = cloud.home(name, worker)
  home.mkdir(parents=True, exist_ok=True)
  return subprocess.Popen(
    ["bash", "-c", command],
    cwd=home,
    env={
      "HOME": str(home),
      "PATH": str(cloud.folder / "bin"),
      "FAKE_MACHINE": cloud.machine(name, node),
      "FAKE_DISKS": " ".join(
        str(cloud.folder / "disks" / disk) for disk in node["disks"]
      ),
      "FAKE_MOUNTS": str(cloud.mounts(name, node)),
      "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{node['port']}",
      "JAX_NUM_PROCESSES": str(node["hosts"]),
      "JAX_PROCESS_ID": str(worker),
      "JAX_PLATFORMS": "cpu",
      "NPROC": os.environ["NPROC"],
      "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=8", "count=1"),
    },
    stdin=subprocess.DEVNULL,
  )


def scp(cloud, words, options):
  *files, to = words
  name, _, folder = to.partition(":")
  with cloud.open() as data:
    node = data["nodes"].get(name)
    if node is None or node["state"] != "READY":
      return missing("nodes", name)
  for worker in range(node["hosts"]):
    for file in files:
      shutil.copy(file, cloud.home(name, worker) / folder)
  return 0


def queue(cloud, names, options):
  fault = cloud.fault("create")
  if fault:
    return fail(fault[1], fault[0])
  if missing_disk(cloud, options):
    return 1
  count = int(getattr(options, "node_count", 1))
  nodes = (
    [f"{options.node_prefix}-{i}" for i in range(count)]
    if (hasattr(options, "node_prefix"))
    else [options.node_id]
  )
  with cloud.open() as data:
    if names[0] in data["queued"]:
      return fail("ALREADY_EXISTS: the queued resource already exists")
    for node in nodes:
      data["nodes"][node] = new_node(data, options)
    data["queued"][names[0]] = {
      "state": "WAITING_FOR_RESOURCES",
      "zone": options.zone,
      "nodes": nodes,
      "labels": options.labels.split("=")[1],
    }
  return 0


QUEUE = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]


def describe_queued(cloud, names, options):
  with cloud.open() as data:
    found = data["queued"].get(names[0])
    if found is None:
      return missing("queuedResources", names[0])
    print(json.dumps(shown_queued(names[0], found)))
    if found["state"] in QUEUE[:-1]:
      found["state"] = QUEUE[QUEUE.index(found["state"]) + 1]
    if found["state"] == "ACTIVE":
      for node in found["nodes"]:
        boot(data["nodes"][node])
  return 0


def shown_queued(name, found):
  place = f"projects/p/locations/{found['zone']}/queuedResources/{name}"
  labels = {"labels": {"jaxsae": found["labels"]}}
  return {
    "name": place,
    "state": {"state": found["state"], **found.get("why", {})},
    "tpu": {"nodeSpec": [{"node": labels}]},
  }


def delete_queued(cloud, names, options):
  with cloud.open() as data:
    found = data["queued"].pop(names[0], None)
    for node in found["nodes"] if found else []:
      cloud.lose(node, data["nodes"].pop(node))
  return 0 if found else missing("queuedResources", names[0])


def list_queued(cloud, names, options):
  with cloud.open() as data:
    print(json.dumps([shown_queued(*x) for x in data["queued"].items()]))
  return 0


def make_part(cloud, names, options):
  """Creates a policy, a template or a group."""
  fault = cloud.fault("part")
  if fault and fault[0]:
    return fail(fault[1], fault[0])
  with cloud.open() as data:
    if names[-1] in data["parts"]:
      return fail(f"The resource '{names[-1]}' already exists")
    data["parts"][names[-1]] = vars(options)
  return 0


def delete_part(cloud, names, options):
  with cloud.open() as data:
    found = data["parts"].pop(names[-1], None)
  return 0 if found is not None else missing("parts", names[-1])


def list_hosts(cloud, names, options):
  with cloud.open() as data:
    group = data["parts"].get(names[0])
    if group is None:
      return missing("instanceGroupManagers", names[0])
    hosts = range(int(group["size"]))
    shown = {"instanceStatus": group.get("state", "RUNNING")}
    if "error" in group:
      error = {"code": "RESOURCE_NOT_FOUND", "message": group["error"]}
      shown = {"lastAttempt": {"errors": {"errors": [error]}}}
  print(json.dumps([{"name": f"{names[0]}-x{i}", **shown} for i in hosts]))
  return 0


def list_instances(cloud, names, options):
  print("[]")
  return 0


def connect(cloud, names, options):
  return 0


def free_port():
  with socket.socket() as listening:
    listening.bind(("127.0.0.1", 0))
    return listening.getsockname()[1]


TPUS = ("compute", "tpus", "tpu-vm")
QUEUED = ("compute", "tpus", "queued-resources")
GROUPS = ("compute", "instance-groups", "managed")
COMMANDS = {
  (*TPUS, "create"): create,
  (*TPUS, "describe"): describe,
  (*TPUS, "delete"): delete,
  (*TPUS, "list"): list_nodes,
  (*TPUS, "ssh"): ssh,
  (*TPUS, "scp"): scp,
  (*QUEUED, "create"): queue,
  (*QUEUED, "describe"): describe_queued,
  (*QUEUED, "delete"): delete_queued,
  (*QUEUED, "list"): list_queued,
  ("compute", "resource-policies", "create"): make_part,
  ("compute", "resource-policies", "delete"): delete_part,
  ("compute", "instance-templates", "create"): make_part,
  ("compute", "instance-templates", "delete"): delete_part,
  (*GROUPS, "create"): make_part,
  (*GROUPS, "delete"): delete_part,
  (*GROUPS, "list-instances"): list_hosts,
  ("compute", "instances", "list"): list_instances,
  ("container", "clusters", "get-credentials"): connect,
}

if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
