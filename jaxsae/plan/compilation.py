"""The run's own step, compiled for slices that are not here."""

import dataclasses
import re
import time

import jax
from jax.sharding import Mesh

from jaxsae.chips import GIB
from jaxsae.lm import Lm
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.state import TrainState
from jaxsae.train.step import compile_step

# As libtpu says it, of a program that asks for more than a device has.
_TOO_BIG = (
  re.compile(r"Used (?P<used>[\d.]+)(?P<unit>[KMGT]?) of [\d.]+[KMGT]? hbm"),
  re.compile(r"\((?P<used>[\d.]+)(?P<unit>[KMGT]?)\) exceeds available HBM"),
  re.compile(r"Allocation \(size=(?P<used>\d+)(?P<unit>)\) would exceed"),
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Compilation:
  """What came of it, on one device.

  Attributes:
    seconds: that it took here.
    peak: bytes of memory at the worst moment of the step; where it does not
      fit, that the compiler says it would take at least; None where it does
      not say.
    arguments: bytes of these that are the step's arguments; None where it does
      not fit.
    text: the compiled program; None where it does not fit.
  """

  seconds: float
  peak: int | None
  arguments: int | None = None
  text: str | None = None


def compile_run(
  config: TrainConfig, mesh: Mesh, arguments: tuple[TrainState, Lm, dict]
) -> Compilation:
  """Compiles what `train` runs, from shapes alone.

  Args:
    config: the run's.
    mesh: of the devices.
    arguments: the step's arguments, as `abstract.arguments` makes them.
  """
  start = time.monotonic()
  try:
    step = compile_step(config, mesh, *arguments)
  except jax.errors.JaxRuntimeError as error:
    peak = needed(str(error))
    return Compilation(time.monotonic() - start, peak)
  memory = step.memory_analysis()
  return Compilation(
    seconds=time.monotonic() - start,
    peak=_peak(memory),
    arguments=memory.argument_size_in_bytes,
    text=step.as_text(),
  )


def _peak(memory) -> int:
  """The worst moment, as the compiler's heap has it, or the sum of its parts.

  Each leaves out something: the former, on a CPU, some of the arguments.
  """
  held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
  held += memory.output_size_in_bytes - memory.alias_size_in_bytes
  held += memory.generated_code_size_in_bytes
  return max(memory.peak_memory_in_bytes, held)


def needed(message: str) -> int | None:
  """Bytes that a program would take, from the compiler's message.

  None where it says only that something is too big to address. What is no
  complaint of too little memory is raised again.
  """
  for pattern in _TOO_BIG:
    if match := pattern.search(message):
      return int(float(match["used"]) * _UNITS[match["unit"]])
  if "RESOURCE_EXHAUSTED" in message or "allocation_size_words" in message:
    return None
  raise RuntimeError(f"the TPU's compiler failed: {message[:2000]}")
