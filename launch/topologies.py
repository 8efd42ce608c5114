"""Slices of TPUs that can be had, and what each service calls them.

One shape for each number of chips: the one that Cloud TPU makes of an
accelerator type, so that what was planned is what is created. Sources, read
on 2026-11-21: docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e and tpu7x;
/compute/docs/tpus/tpu-machines; /kubernetes-engine/docs/concepts/plan-tpus.
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
    name: as in `v5e:2x4`.
    shapes: the slices there are.
    accelerator: what an accelerator type begins with; None: Cloud TPU's API
      does not have it.
    counts: by how much the number in an accelerator type exceeds the chips; it
      counts cores, where a chip has two.
    runtime: the software version of its TPU VMs.
    machine: what a machine type of Compute Engine begins with; None: it has no
      managed instance groups.
    image: the family of its images there.
    node: GKE's label of its nodes.
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
  """One slice.

  Attributes:
    chip: its kind of TPU.
    shape: as `2x4`.
  """

  chip: Chip
  shape: str

  @classmethod
  def parse(cls, text: str) -> "Topology":
    """`"v5e:2x4"` → the slice.

    Raises:
      LaunchError: there is none of that name; names those that exist.
    """
    kind, _, shape = text.partition(":")
    if kind not in CHIPS:
      raise LaunchError(
        f"--topology={text}: {kind!r} is no TPU; there are {', '.join(CHIPS)},"
        " as in v5e:2x4."
      )
    chip = CHIPS[kind]
    if shape not in chip.shapes:
      raise LaunchError(
        f"--topology={text}: {kind} has no slice {shape!r}; there are"
        f" {', '.join(f'{kind}:{x}' for x in chip.shapes)}."
      )
    return cls(chip, shape)

  def __str__(self) -> str:
    return f"{self.chip.name}:{self.shape}"

  @property
  def chips(self) -> int:
    """In the slice."""
    return math.prod(map(int, self.shape.split("x")))

  @property
  def chips_per_host(self) -> int:
    """Flat slices of up to eight chips are one host; all others have four."""
    whole = len(self.shape.split("x")) == 2 and self.chips <= 8
    return self.chips if whole else 4

  @property
  def hosts(self) -> int:
    """Machines in the slice; each is one process of the run."""
    return self.chips // self.chips_per_host

  @property
  def accelerator_type(self) -> str:
    """What Cloud TPU's API calls it."""
    return f"{self.chip.accelerator}-{self.chips * self.chip.counts}"

  @property
  def machine_type(self) -> str:
    """What Compute Engine calls one of its hosts."""
    return f"{self.chip.machine}-{self.chips_per_host}t"
