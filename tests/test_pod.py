"""Two real processes: both hear what the leader finds."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxsae import pod
from jaxsae.errors import UserError
from tests import pods

SCRIPT = """
import json, os, sys
os.environ["JAX_PLATFORMS"] = "cpu"
import jax
jax.config.update("jax_num_cpu_devices", 2)
number, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.distributed.initialize(
  f"127.0.0.1:{port}", 2, number, cluster_detection_method="deactivate",
  coordinator_bind_address=f"127.0.0.1:{port}", initialization_timeout=60)
from etils import epath
from jaxsae.errors import RunError, UserError
from tests import pods
from jaxsae import pod
from jaxsae.train.process import lease

said, acted = [], []

def first(act):
  try:
    said.append(pod.on_leader(lambda: acted.append(1) or act()))
  except Exception as error:
    said.append(f"{type(error).__name__}: {error}")

def fail(error):
  raise error

first(lambda: 7)
first(lambda: None)
first(lambda: fail(UserError("Größe 3")))
first(lambda: fail(RunError("broken " * 1000)))
first(lambda: fail(ZeroDivisionError("zero")))
folder = epath.Path(folder)
with lease.hold(folder) as held:
  held.check()
  pid = json.loads((folder / lease.FILE).read_text())["pid"]
  try:
    with lease.hold(folder):
      pass
  except UserError as error:
    said.append(f"pid {pid}" in str(error) and "under way" in str(error))
said.append(pid == os.getpid())
pod.on_leader(lambda: True)  # all have read it
print(json.dumps([said, len(acted)]))
jax.distributed.shutdown()
"""


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
  """Returns what each of two processes heard, and how often it acted."""
  port = pods.free_port()
  folder = tmp_path_factory.mktemp("pod") / "run"
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", SCRIPT, str(number), str(port), str(folder)],
      stdout=subprocess.PIPE,
      text=True,
    )
    for number in range(2)
  ]
  try:
    outs = [process.communicate(timeout=120)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert [process.returncode for process in processes] == [0, 0]
  return [json.loads(out.splitlines()[-1]) for out in outs]


def test_only_the_first_acts(heard):
  assert [acted for _, acted in heard] == [5, 0]


def test_all_hear_the_same(heard):
  (one, _), (two, _) = heard
  assert one[:3] == two[:3] == [7, None, "UserError: Größe 3"]
  assert one[3] == two[3] == "RunError: " + "broken " * 1000
  assert one[4] == "ZeroDivisionError: zero"
  assert two[4] == "RunError: zero"  # no sentence for a person, but an end


def test_the_first_holds_the_lease_and_all_are_refused(heard):
  assert [said[5:] for said, _ in heard] == [[True, True], [True, False]]


def test_half_a_description_of_a_pod_is_refused(monkeypatch):
  monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
  with pytest.raises(UserError, match="JAX_PROCESS_ID"):
    pod.join()
  monkeypatch.setenv("JAX_PROCESS_ID", "one")
  monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:9")
  with pytest.raises(UserError, match="JAX_PROCESS_ID=one is not a number"):
    pod.join()


def test_a_process_that_uses_jax_already_cannot_join_a_pod(monkeypatch):
  jax.devices()
  pod.join()  # nothing says that there is one
  assert jax.process_count() == 1
  for name, value in {
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "1",
    "JAX_COORDINATOR_ADDRESS": "127.0.0.1:9",
  }.items():
    monkeypatch.setenv(name, value)
  place = r"JAX_COORDINATOR_ADDRESS=127\.0\.0\.1:9 is set"
  with pytest.raises(UserError, match=place):
    pod.join()


def test_one_process_is_the_leader_and_holds_whole_arrays():
  np.testing.assert_array_equal(pod.to_host({"x": jax.numpy.ones(3)})["x"], 1)
  assert pod.true_on_all(True) and not pod.true_on_all(False)
  assert pod.on_leader(lambda: 3) == 3
