"""A request for slices: which ones, where and on what terms."""

import dataclasses
from collections.abc import Sequence

from launch.errors import LaunchError
from launch.topologies import Topology

BACKENDS = ("tpu-vm", "mig", "gke")
CAPACITIES = ("on-demand", "spot", "queued", "flex-start")
LONGEST_FLEX_START = "7d"  # the longest that flex-start allows


@dataclasses.dataclass(frozen=True)
class Request:
  """One or more equal slices that run one program.

  Attributes:
    name: name of the slices; also their label, `jaxsae=NAME`.
    topology: chip and shape of each slice, such as `v5e:2x4`.
    zone: zone of the slices or location of the cluster.
    backend: the service: one of `BACKENDS`.
    project: project ID; None for the one gcloud is set to.
    capacity: one of `CAPACITIES`.
    slices: number of slices.
    max_run_duration: time after which Google deletes the slices; flex-start
      only.
    valid_until_duration: longest time to wait in the queue.
    cluster: name of the cluster; GKE only.
    image: image with the code and its requirements; GKE only.
    disks: data disks to attach read-only to every host, as NAME:MOUNT.
  """

  name: str
  topology: str
  zone: str
  backend: str = "tpu-vm"
  project: str | None = None
  capacity: str = "on-demand"
  slices: int = 1
  max_run_duration: str | None = None
  valid_until_duration: str | None = None
  cluster: str | None = None
  image: str | None = None
  disks: Sequence[str] = ()

  @property
  def mounts(self) -> list[tuple[str, str]]:
    """The name and the mount of each data disk."""
    pairs = [disk.split(":", 1) for disk in self.disks]
    return [(name, mount) for name, mount in pairs]

  @property
  def slice(self) -> Topology:
    """Topology of one slice."""
    return Topology.parse(self.topology)

  @property
  def hosts(self) -> int:
    """Number of hosts in all slices together."""
    return self.slice.hosts * self.slices

  @property
  def place(self) -> list[str]:
    """The zone and project flags of gcloud."""
    return [f"--zone={self.zone}", *self.owner]

  @property
  def owner(self) -> list[str]:
    """The project flag of gcloud, if a project was given."""
    return [f"--project={self.project}"] if self.project else []

  @property
  def is_queued(self) -> bool:
    """Returns whether the request goes through Cloud TPU's queue."""
    return self.capacity in ("queued", "flex-start") or self.slices > 1

  def check(self) -> None:
    """Raises LaunchError if the service cannot fulfil the request."""
    if self.slices < 1:
      raise LaunchError(f"--slices={self.slices}: there must be at least one.")
    _check_disks(self)
    _CHECKS[self.backend](self)
    if self.max_run_duration and self.capacity != "flex-start":
      raise LaunchError(
        "--max-run-duration is for --capacity=flex-start; give both or neither."
      )
    if self.valid_until_duration and not self.is_queued:
      raise LaunchError(
        "--valid-until-duration limits the wait in a queue; give it with"
        " --capacity=queued or flex-start."
      )


def _check_disks(request: Request) -> None:
  names = [name for name, _ in request.mounts]
  folders = [mount for _, mount in request.mounts]
  for given in (names, folders):
    if len(set(given)) < len(given):
      raise LaunchError(
        f"--disk={' --disk='.join(request.disks)}: give each disk once, and"
        " each another folder."
      )


def _check_tpu_vm(request: Request) -> None:
  if request.slice.chip.accelerator is None:
    raise LaunchError(
      f"--backend=tpu-vm cannot create {request.topology}: Cloud TPU's API"
      " ends at v6e; use --backend=mig or --backend=gke."
    )
  if request.disks and request.project is None:
    raise LaunchError(
      "--disk needs --project: Cloud TPU's API names a disk by its project."
    )


def _check_mig(request: Request) -> None:
  if request.project is None:
    raise LaunchError(
      "--backend=mig needs --project: the slice's policy is named by it."
    )
  if request.slice.chip.machine is None:
    raise LaunchError(
      f"--backend=mig cannot create {request.topology}: instance groups"
      " begin at v5p; use --backend=tpu-vm."
    )
  if request.slices > 1:
    raise LaunchError(
      f"--backend=mig creates one slice, not --slices={request.slices}; use"
      " --backend=gke, or tpu-vm where it has the chip."
    )
  if request.capacity not in ("on-demand", "spot"):
    raise LaunchError(
      f"--backend=mig has no --capacity={request.capacity}; use on-demand or"
      " spot, or --backend=tpu-vm where it has the chip."
    )


def _check_gke(request: Request) -> None:
  missing = [f"--{x}" for x in ("cluster", "image") if not getattr(request, x)]
  if missing:
    raise LaunchError(
      f"--backend=gke needs {' and '.join(missing)}: a cluster with a node pool"
      " of this topology and JobSet installed, and an image with the code."
    )
  if request.capacity not in ("on-demand", "spot"):
    raise LaunchError(
      f"--backend=gke has no --capacity={request.capacity}: it is the node"
      " pool's; use on-demand or spot."
    )


_CHECKS = {"tpu-vm": _check_tpu_vm, "mig": _check_mig, "gke": _check_gke}
