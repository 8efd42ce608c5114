"""The JobSet and the SkyPilot task have the documented fields, and no others.

The schemas hold what jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2, the
Job and Pod API of Kubernetes 1.31 and SkyPilot's YAML reference say of the
fields used here.
"""

import functools
import json
import operator
import pathlib
import re
import shlex
import warnings

import pytest

from launch import jobset, skypilot
from launch.__main__ import main
from launch.errors import LaunchError
from launch.ledger import Run
from launch.request import Request

with warnings.catch_warnings():
  warnings.simplefilter("ignore", DeprecationWarning)
  import jsonschema
import yaml

JOB = ["spec", "replicatedJobs", 0, "template", "spec"]
HERE = pathlib.Path(__file__).parent
HOSTILE = ["--a=; $(touch x)", "--b=' \" \\", "--c=a\nb", "--d=$(HOME)"]
RUN = Run(
  "run-000000",
  ["experiments/quickstart.py", *HOSTILE],
  "gs://b/r",
  {"COLOUR": "red", "REFERENCE": "$(OTHER)"},
)


def request(**changes):
  values = {
    "name": "demo",
    "topology": "v5p:4x4x4",
    "zone": "us-east5-a",
    "image": "us-docker.pkg.dev/p/r/jaxsae:1",
    "cluster": "c",
  }
  return Request(**values | changes)


def check(document, name):
  schema = json.loads((HERE / f"{name}.schema.json").read_text())
  jsonschema.Draft202012Validator.check_schema(schema)
  jsonschema.validate(document, schema)


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"slices": 4, "capacity": "spot"},
    {"topology": "tpu7x:2x2x1"},
    {"topology": "v5e:2x4"},
    {"disks": ("text:/mnt/text", "weights:/data/w")},
  ],
)
def test_the_jobset_is_valid(changes):
  check(jobset.manifest(request(**changes), RUN), "jobset")


@pytest.mark.parametrize(
  "path, value",
  [
    (["apiVersion"], "jobset.x-k8s.io/v1"),
    (["spec", "maxRestarts"], 3),
    (["spec", "failurePolicy", "rules", 0, "action"], "Restart"),
    ([*JOB, "backoffLimit"], 4),
    ([*JOB, "podFailurePolicy", "rules", 0, "name"], "x"),
    ([*JOB, "template", "spec", "restartPolicy"], "Always"),
    ([*JOB, "template", "spec", "volumes"], [{"name": "text"}]),
  ],
)
def test_the_check_of_a_jobset_detects_mistakes(path, value):
  document = jobset.manifest(request(), RUN)
  place = functools.reduce(operator.getitem, path[:-1], document)
  place[path[-1]] = value
  with pytest.raises(jsonschema.ValidationError):
    check(document, "jobset")


@pytest.mark.parametrize(
  "status, action",
  [
    (42, "RestartJobSetAndIgnoreMaxRestarts"),
    ("DisruptionTarget", "RestartJobSetAndIgnoreMaxRestarts"),
    (1, "FailJobSet"),
    (2, "FailJobSet"),
    (139, "FailJobSet"),
    (134, "RestartJobSet"),
    (137, "RestartJobSet"),
    (143, "RestartJobSet"),
  ],
)
def test_the_jobset_restarts_or_fails_after_a_pod_ended(status, action):
  """Applies the rules as Kubernetes does: the pod's, then the JobSet's."""
  spec = jobset.manifest(request(), RUN)["spec"]
  job = spec["replicatedJobs"][0]["template"]["spec"]
  assert after(spec["failurePolicy"], job["podFailurePolicy"], status) == action


def after(failure_policy, pod_failure_policy, status):
  reason, message = "BackoffLimitExceeded", "Job has reached the limit"
  for index, rule in enumerate(pod_failure_policy["rules"]):
    if fires(rule, status):
      reason = "PodFailurePolicy"
      message = f"Pod default/x matching FailJob rule at index {index}"
      break
  for rule in failure_policy["rules"]:
    if reason in rule["onJobFailureReasons"] and any(
      re.search(pattern, message)
      for pattern in rule["onJobFailureMessagePatterns"]
    ):
      return rule["action"]
  return "RestartJobSet"


def fires(rule, status):
  if "onPodConditions" in rule:
    return status in [one["type"] for one in rule["onPodConditions"]]
  codes = rule["onExitCodes"]
  if not isinstance(status, int):
    return False
  return (status in codes["values"]) == (codes["operator"] == "In")


def test_the_jobset_runs_a_vector_on_all_hosts():
  spec = jobset.manifest(request(slices=2), RUN)["spec"]
  job = spec["replicatedJobs"][0]
  assert job["replicas"] == 2
  assert job["template"]["spec"]["completions"] == 16
  container = job["template"]["spec"]["template"]["spec"]["containers"][0]
  assert container["resources"]["limits"] == {"google.com/tpu": "4"}
  # Kubernetes puts variables into both; a doubled $ stands for one.
  command = [word.replace("$$(", "$(") for word in container["command"]]
  assert command == ["python", *RUN.argv]
  assert "$(" not in "".join(container["command"]).replace("$$(", "")
  values = {one["name"]: one["value"] for one in container["env"]}
  assert values["REFERENCE"] == "$$(OTHER)"


def test_disks_of_the_jobset_are_claims_that_are_read_only():
  spec = jobset.manifest(request(disks=("text:/mnt/text",)), RUN)["spec"]
  job = spec["replicatedJobs"][0]["template"]["spec"]
  pod = job["template"]["spec"]
  (volume,), (mount,) = pod["volumes"], pod["containers"][0]["volumeMounts"]
  assert volume["name"] == mount["name"] and mount["mountPath"] == "/mnt/text"
  claim = {"claimName": "text", "readOnly": True}
  assert volume["persistentVolumeClaim"] == claim and mount["readOnly"]


def test_a_task_has_no_disks():
  with pytest.raises(LaunchError, match=r"--disk=text.*file_mounts"):
    skypilot.check(request(disks=("text:/mnt/text",)))


@pytest.mark.parametrize(
  "changes", [{}, {"capacity": "spot"}, {"topology": "v6e:2x4"}]
)
def test_the_task_is_valid(changes):
  check(skypilot.task(request(**changes), RUN), "skypilot")


def test_the_task_is_yaml_and_its_commands_are_quoted(capsys):
  words = [f"--workdir={RUN.workdir}", *HOSTILE]
  where = ("--topology=v6e:2x4", "--zone=us-east5-b")
  argv = ["skypilot", "demo", *where, "--dry-run"]
  assert main([*argv, "experiments/quickstart.py", *words]) == 0
  task = yaml.safe_load(capsys.readouterr().out)
  check(task, "skypilot")
  told = shlex.split(task["run"])
  assert told[1:] == ["experiments/quickstart.py", *words]
  assert task["resources"]["accelerators"] == "tpu-v6e-8"
  assert task["resources"]["job_recovery"]["max_restarts_on_errors"] == 0
