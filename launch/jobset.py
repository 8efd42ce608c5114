"""Runs a JobSet on GKE, which restarts the run by itself.

Fields: jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2 and the Job API of
Kubernetes 1.31. Rules that look at messages need JobSet 0.10. Each slice is a
job of as many pods as it has hosts, which fails as a whole when one pod does.
"""

import json

from launch import failures, run_outcome
from launch.command import Shell
from launch.ledger import Run
from launch.request import Request

GRACE = 120  # seconds from SIGTERM to SIGKILL, for the last checkpoint
KEEP = 12 * 60 * 60  # seconds for which a finished JobSet is kept
RETRIES = 3  # restarts after failures of the machines
_CONTAINER = "run"
_TREE = "/jaxsae"  # where the image has the code


def manifest(request: Request, run: Run) -> dict:
  """Returns the JobSet of a run as kubectl reads it."""
  labels = {"jaxsae": request.name}
  return {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": {
      "name": request.name,
      "labels": labels,
      # A node pool is a slice, and two jobs must not share one.
      "annotations": {
        "alpha.jobset.sigs.k8s.io/exclusive-topology": (
          "cloud.google.com/gke-nodepool"
        ),
        "jaxsae/run": run.id,
      },
    },
    "spec": {
      "ttlSecondsAfterFinished": KEEP,
      "failurePolicy": _failure_policy(),
      "replicatedJobs": [
        {
          "name": "slice",
          "replicas": request.slices,
          "template": {"spec": _job(request, run, labels)},
        }
      ],
    },
  }


def _failure_policy() -> dict:
  """Returns the rules for restarts; unmatched failures restart and count."""
  actions = (
    ("evicted", "RestartJobSetAndIgnoreMaxRestarts"),
    ("preempted", "RestartJobSetAndIgnoreMaxRestarts"),
    ("fault", "FailJobSet"),
  )
  return {
    "maxRestarts": RETRIES,
    "rules": [
      {
        "name": name,
        "action": action,
        "onJobFailureReasons": ["PodFailurePolicy"],
        # Only this message tells which of the pod's rules matched.
        "onJobFailureMessagePatterns": [f"matching FailJob rule at index {i}$"],
      }
      for i, (name, action) in enumerate(actions)
    ],
  }


def _pod_rules() -> list[dict]:
  """Returns the ways a pod can end, in the order of the actions above."""
  preempted = [run_outcome.PREEMPTED]
  kept = sorted({run_outcome.PREEMPTED, *run_outcome.INFRASTRUCTURE})
  disrupted = {"type": "DisruptionTarget", "status": "True"}
  return [
    {"action": "FailJob", "onPodConditions": [disrupted]},
    {"action": "FailJob", "onExitCodes": _codes("In", preempted)},
    {"action": "FailJob", "onExitCodes": _codes("NotIn", kept)},
  ]


def _codes(operator: str, values: list[int]) -> dict:
  return {
    "containerName": _CONTAINER,
    "operator": operator,
    "values": values,
  }


def _job(request: Request, run: Run, labels: dict) -> dict:
  hosts = request.slice.hosts
  return {
    "parallelism": hosts,
    "completions": hosts,
    "completionMode": "Indexed",
    "backoffLimit": 0,  # one pod alone is useless: all or none
    "podFailurePolicy": {"rules": _pod_rules()},
    "template": {"metadata": {"labels": labels}, "spec": _pod(request, run)},
  }


def _pod(request: Request, run: Run) -> dict:
  slice = request.slice
  selector = {
    "cloud.google.com/gke-tpu-accelerator": slice.chip.node,
    "cloud.google.com/gke-tpu-topology": slice.shape,
  }
  if request.capacity == "spot":
    selector["cloud.google.com/gke-spot"] = "true"
  pod = {
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": GRACE,
    "nodeSelector": selector,
    "containers": [_container(request, run)],
  }
  if request.mounts:
    pod["volumes"] = [_volume(claim) for claim, _ in request.mounts]
  return pod


def _container(request: Request, run: Run) -> dict:
  chips = str(request.slice.chips_per_host)
  container = {
    "name": _CONTAINER,
    "image": request.image,
    "workingDir": _TREE,
    # A list of arguments, which no shell reads.
    "command": ["python", *map(_literal, run.argv)],
    "env": _environment(run),
    "resources": {
      "requests": {"google.com/tpu": chips},
      "limits": {"google.com/tpu": chips},
    },
  }
  if request.mounts:
    container["volumeMounts"] = [
      {"name": claim, "mountPath": mount, "readOnly": True}
      for claim, mount in request.mounts
    ]
  return container


def _volume(claim: str) -> dict:
  """Returns a PersistentVolumeClaim of the cluster as a volume of the pod."""
  return {
    "name": claim,
    "persistentVolumeClaim": {"claimName": claim, "readOnly": True},
  }


def _environment(run: Run) -> list[dict]:
  variables = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": _TREE, **run.env}
  return [{"name": k, "value": _literal(v)} for k, v in variables.items()]


def _literal(value: str) -> str:
  """Escapes $(NAME), which Kubernetes would replace by a variable."""
  return value.replace("$(", "$$(")


class JobSet:
  """The JobSet of one request, on its cluster."""

  def __init__(self, request: Request, shell: Shell):
    self._request, self._shell = request, shell

  def connect(self) -> None:
    """Points kubectl at the cluster; raises CommandFailed if it is absent."""
    self._shell.run_checked(
      [
        "gcloud",
        "container",
        "clusters",
        "get-credentials",
        self._request.cluster,
        f"--location={self._request.zone}",
        *self._request.owner,
      ]
    )

  def start(self, run: Run) -> None:
    """Submits the run; raises CommandFailed if it is refused."""
    self._shell.run_checked(
      ["kubectl", "create", "--filename=-"],
      stdin=json.dumps(manifest(self._request, run), indent=2),
    )

  def status(self) -> tuple[str, int]:
    """Returns Completed, Failed or "running", and the number of restarts."""
    said = self._shell.run_checked(
      ["kubectl", "get", "jobset", self._request.name, "--output=json"],
      assume="{}",
    )
    status = json.loads(said).get("status", {})
    return status.get("terminalState") or "running", status.get("restarts", 0)

  def logs(self, slice: int, worker: int) -> str:
    """Returns the output of one worker since its last restart."""
    pod = f"{self._request.name}-slice-{slice}"
    labels = (
      f"batch.kubernetes.io/job-name={pod},"
      f"batch.kubernetes.io/job-completion-index={worker}"
    )
    argv = ["kubectl", "logs", f"--selector={labels}", "--tail=-1"]
    done = self._shell.run(argv)
    if done.status and "waiting to start" not in done.err:
      raise failures.from_command(argv, done.err, done.status)
    return done.out

  def delete(self) -> None:
    """Deletes the JobSet; its pods first save a checkpoint. Nodes stay."""
    self._shell.run_checked(
      ["kubectl", "delete", "jobset", self._request.name, "--ignore-not-found"]
    )
