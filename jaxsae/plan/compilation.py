"""Compiles a run's own step for TPU slices without having them."""

import dataclasses
import functools
import re
import time
from collections.abc import Callable
from typing import Any

import jax

from jaxsae.chips import GIB
from jaxsae.lm import Lm
from jaxsae.token_batch import TokenBatch
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.group import Group
from jaxsae.train.sources.text import read_bucket
from jaxsae.train.state import TrainState
from jaxsae.train.step import compile_step

# libtpu's messages about a program that needs more than a device has.
_TOO_BIG = (
  re.compile(r"Used (?P<used>[\d.]+)(?P<unit>[KMGT]?) of [\d.]+[KMGT]? hbm"),
  re.compile(r"\((?P<used>[\d.]+)(?P<unit>[KMGT]?)\) exceeds available HBM"),
  re.compile(r"Allocation \(size=(?P<used>\d+)(?P<unit>)\) would exceed"),
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Compilation:
  """The result of compiling a step; bytes are of one device.

  Attributes:
    seconds: seconds that compiling took.
    peak: bytes of memory at the step's peak. If the step does not fit, the
      least that it needs by the compiler's message; None if that does not say.
    arguments: bytes of `peak` that are the step's arguments; None if the step
      does not fit.
    text: the compiled program; None if it does not fit.
  """

  seconds: float
  peak: int | None
  arguments: int | None = None
  text: str | None = None


def compile_run(
  config: TrainConfig,
  groups: tuple[Group, ...],
  arguments: tuple[TrainState, Lm, TokenBatch],
) -> Compilation:
  """Compiles the step that `train` runs, from shapes alone.

  Args:
    config: the run's config.
    groups: the stacks of the run, grouped and placed.
    arguments: the step's arguments, from `sources.text.abstract_arguments`.
  """
  read = functools.partial(read_bucket, config, groups[0].mesh)
  return compile_program(lambda: compile_step(read, groups, *arguments))


Compile = Callable[[], jax.stages.Compiled]


def compile_program(compile_it: Compile) -> Compilation:
  """Compiles a program, and says what it needs if it does not fit."""
  start = time.monotonic()
  try:
    step = compile_it()
  except jax.errors.JaxRuntimeError as error:
    peak = needed(str(error))
    return Compilation(time.monotonic() - start, peak)
  memory = step.memory_analysis()
  assert memory is not None  # CPUs and TPUs have one
  return Compilation(
    seconds=time.monotonic() - start,
    peak=_peak(memory),
    arguments=memory.argument_size_in_bytes,
    text=step.as_text(),
  )


def _peak(memory: Any) -> int:
  """Returns the larger of the compiler's own peak and the sum of all parts.

  Each leaves out something: the former, on a CPU, some of the arguments.
  """
  held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
  held += memory.output_size_in_bytes - memory.alias_size_in_bytes
  held += memory.generated_code_size_in_bytes
  return max(memory.peak_memory_in_bytes, held)


def needed(message: str) -> int | None:
  """Returns the bytes that a program needs, from the compiler's message.

  None if the message says only that something is too big to address.

  Raises:
    RuntimeError: the message is not about memory.
  """
  for pattern in _TOO_BIG:
    if match := pattern.search(message):
      return int(float(match["used"]) * _UNITS[match["unit"]])
  if "RESOURCE_EXHAUSTED" in message or "allocation_size_words" in message:
    return None
  raise RuntimeError(f"The TPU's compiler failed: {message[:2000]}")
