"""Peak figures of accelerators, per device as JAX counts them.

TPU: "How to Scale Your Model" (jax-ml.github.io/scaling-book) and Google
Cloud's pages of each TPU. GPU: NVIDIA's data sheets, dense bfloat16. They are
the makers' peaks; no program reaches them.
"""

import dataclasses
import math

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """The peak figures of one device.

  Attributes:
    name: the `device_kind` that these figures belong to.
    flops: operations a second in bfloat16.
    hbm_bytes: bytes of memory.
    hbm_bandwidth: bytes a second to or from memory.
    link_bandwidth: bytes a second that a device sends along one axis of its
      torus, both ways together; among GPUs, through NVLink.
  """

  name: str
  flops: float
  hbm_bytes: float
  hbm_bandwidth: float
  link_bandwidth: float


# On TPU v3 and TPU7x a device is half a chip.
CHIPS = {
  chip.name: chip
  for chip in (
    Chip("TPU v3", 6.15e13, 16 * GIB, 4.5e11, 1e11),
    Chip("TPU v4", 2.75e14, 32 * GIB, 1.2e12, 9e10),
    Chip("TPU v5 lite", 1.97e14, 16 * GIB, 8.1e11, 9e10),
    Chip("TPU v5", 4.59e14, 95 * GIB, 2.765e12, 1.8e11),
    Chip("TPU v6 lite", 9.18e14, 32 * GIB, 1.638e12, 1.8e11),
    Chip("TPU7x", 1.15e15, 96 * GIB, 3.7e12, 9e10),
    Chip("NVIDIA H100 80GB HBM3", 9.9e14, 80e9, 3.4e12, 4.5e11),
    Chip("NVIDIA H200", 9.9e14, 141e9, 4.8e12, 4.5e11),
    # Not a peak: round figures for a few cores in float32. The system limits
    # the memory.
    Chip("cpu", 2e11, math.inf, 1e10, 1e10),
  )
}
SAME = {
  "TPU v5e": "TPU v5 lite",
  "TPU v5p": "TPU v5",
  "TPU v6e": "TPU v6 lite",
}
STAND_IN = "TPU v5 lite"


def of(kind: str) -> Chip:
  """Returns the figures of a `device_kind`, or a stand-in's under its own name.

  An unknown kind is taken for a TPU v5e, so that a plan can be made; callers
  that print it say so if `name` is not the kind.
  """
  return CHIPS[SAME.get(kind, kind if kind in CHIPS else STAND_IN)]
