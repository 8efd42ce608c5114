"""`list` and the verbs on a JobSet, with a kubectl that records its calls."""

import json
import sys

import pytest

from tests.launch.conftest import script
from tests.launch.test_run import EXPERIMENT

KUBECTL = f"""#!{sys.executable} -S
import json, os, pathlib, sys
folder = pathlib.Path(os.environ["FAKE_GCLOUD"])
with open(folder / "kubectl.jsonl", "a") as calls:
  calls.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "create":
  (folder / "manifest.json").write_text(sys.stdin.read())
if sys.argv[1] == "get":
  states = json.loads((folder / "states.json").read_text())
  print(json.dumps({{"status": states[0]}}))
  (folder / "states.json").write_text(json.dumps(states[1:] or states))
if sys.argv[1] == "logs":
  print("step 1")
"""
WHERE = (
  "--topology=v6e:4x4",
  "--zone=us-east5",
  "--backend=gke",
  "--cluster=c",
  "--image=us-docker.pkg.dev/p/r/jaxsae:1",
)


def test_list_shows_everything_that_runs(made, launch):
  made()
  made("b", "v5p:2x2x1", "--slices=2")
  status, out, _ = launch("list")
  assert status == 0
  lines = out.splitlines()
  assert "a  us-east5-a  READY" in lines
  assert "b  us-east5-a  queued: ACTIVE" in lines
  assert {"b-0  us-east5-a  READY", "b-1  us-east5-a  READY"} <= set(lines)
  launch("delete", "a")
  launch("delete", "b")
  assert "nothing runs" in launch("list")[1]


@pytest.fixture
def cluster(cloud, checkout, launch, tmp_path):
  """Makes a JobSet called a, with a state that the test sets."""
  script(tmp_path / "bin" / "kubectl", KUBECTL)
  assert launch("create", "a", *WHERE)[0] == 0

  def states(*said):
    (cloud.folder / "states.json").write_text(json.dumps(said))

  return states


@pytest.mark.parametrize("end, status", [("Completed", 0), ("Failed", 1)])
def test_a_jobset_is_started_and_watched_to_its_end(
  cluster, launch, cloud, end, status
):
  assert launch("run", EXPERIMENT, "--workdir=gs://b/r")[0] == 0
  manifest = json.loads((cloud.folder / "manifest.json").read_text())
  assert manifest["metadata"]["name"] == "a"
  cluster({}, {"restarts": 1}, {"restarts": 1, "terminalState": end})
  ended, out, _ = launch("watch", "--poll=0.01", "--delete-when-done")
  assert ended == status
  assert out.count("step 1") == 1 and "1 restarts" in out
  calls = (cloud.folder / "kubectl.jsonl").read_text().splitlines()
  assert json.loads(calls[-1])[:3] == ["delete", "jobset", "a"]
  assert launch("status")[0] == 2


def test_a_jobset_refuses_set_up_and_sweeps(cluster, launch):
  status, _, err = launch("setup")
  assert status == 2 and "build and push that image" in err
  words = (EXPERIMENT, "--workdir=gs://b/r")
  status, _, err = launch("sweep", "--on=a", *words)
  assert status == 2 and "a is a JobSet" in err
