"""TPU slices that exist, and what each service calls them.

There is one shape for each number of chips: the one that Cloud TPU creates for
an accelerator type, so the slice that is created is the one that was planned.
Sources, read on 2026-11-21: docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e
and tpu7x; /compute/docs/tpus/tpu-machines;
/kubernetes-engine/docs/concepts/plan-tpus.
"""

import dataclasses
import math

from launch.errors import LaunchError

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_DEEP = (
  "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8",
  "8x8x12", "8x8x16", "8x16x16",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Chip:
  """One kind of TPU.

  Attributes:
    name: the part before the colon in `v5e:2x4`.
    shapes: shapes of the slices that exist.
    accelerator: prefix of its accelerator types; None if Cloud TPU's API does
      not have it.
    counts: ratio of the number in an accelerator type to the number of chips: 2
      where it counts cores.
    runtime: the software version of its TPU VMs.
    machine: prefix of its Compute Engine machine types; None if it has no
      managed instance groups.
    image: family of its Compute Engine images.
    node: label of its nodes on GKE.
  """

  name: str
  shapes: tuple[str, ...]
  accelerator: str | None = None
  counts: int = 1
  runtime: str = ""
  machine: str | None = None
  image: str = ""
  node: str = ""


_IMAGE = "ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e"
CHIPS = {
  chip.name: chip
  for chip in (
    Chip("v4", _DEEP, "v4", 2, "tpu-ubuntu2204-base", node="tpu-v4-podslice"),
    Chip(
      "v5e",
      _FLAT,
      "v5litepod",
      runtime="v2-alpha-tpuv5-lite",
      node="tpu-v5-lite-podslice",
    ),
    Chip(
      "v5p",
      _DEEP,
      "v5p",
      2,
      "v2-alpha-tpuv5",
      "ct5p-hightpu",
      _IMAGE,
      "tpu-v5p-slice",
    ),
    Chip(
      "v6e",
      _FLAT,
      "v6e",
      1,
      "v2-alpha-tpuv6e",
      "ct6e-standard",
      _IMAGE,
      "tpu-v6e-slice",
    ),
    Chip(
      "tpu7x",
      _DEEP,
      machine="tpu7x-standard",
      image="ubuntu-accel-2404-amd64-tpu-tpu7x",
      node="tpu7x",
    ),
  )
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """The chip and shape of a slice.

  Attributes:
    chip: its kind of TPU.
    shape: chips along each dimension, such as `2x4`.
  """

  chip: Chip
  shape: str

  @classmethod
  def parse(cls, text: str) -> "Topology":
    """Parses a topology such as `"v5e:2x4"`.

    Raises:
      LaunchError: no such slice exists; the message lists those that do.
    """
    kind, _, shape = text.partition(":")
    if kind not in CHIPS:
      raise LaunchError(
        f"--topology={text}: {kind!r} is not a TPU; choose one of"
        f" {', '.join(CHIPS)}, as in v5e:2x4."
      )
    chip = CHIPS[kind]
    if shape not in chip.shapes:
      raise LaunchError(
        f"--topology={text}: {kind} has no slice {shape!r}; choose one of"
        f" {', '.join(f'{kind}:{x}' for x in chip.shapes)}."
      )
    return cls(chip, shape)

  def __str__(self) -> str:
    return f"{self.chip.name}:{self.shape}"

  @property
  def chips(self) -> int:
    """Number of chips in the slice."""
    return math.prod(map(int, self.shape.split("x")))

  @property
  def chips_per_host(self) -> int:
    """Chips per host: all of a flat slice of up to eight chips, else four."""
    whole = len(self.shape.split("x")) == 2 and self.chips <= 8
    return self.chips if whole else 4

  @property
  def hosts(self) -> int:
    """Number of hosts in the slice; each runs one process."""
    return self.chips // self.chips_per_host

  @property
  def accelerator_type(self) -> str:
    """Name of the slice in Cloud TPU's API."""
    return f"{self.chip.accelerator}-{self.chips * self.chip.counts}"

  @property
  def machine_type(self) -> str:
    """Name of one of its hosts in Compute Engine."""
    return f"{self.chip.machine}-{self.chips_per_host}t"
