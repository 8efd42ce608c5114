"""Predicts what a run takes besides training: seconds, bytes and dollars.

The rates of hosts are assumptions, which are told beside the figures.
"""

import dataclasses
import math

from jax.sharding import Mesh

from jaxsae.lm import GemmaConfig
from jaxsae.plan.prices import ChipPrice, StoragePrice
from jaxsae.train.config.run import TrainConfig

TOKENS = 600_000.0  # tokens a second that one host makes of text
STORAGE = 200 * 2.0**20  # bytes a second between one host and a bucket
ASSUMED = (
  "Assumed: a host makes 600,000 tokens a second (2.4 million characters on one"
  " core, measured 2026-11-29 with the shipped tokenizer; with Gemma's it was"
  " not), and moves 200 MiB/s to or from a bucket (one stream,"
  " beginswithdata.com/2024/02/01/google-cloud-storage-max-throughput)."
)


@dataclasses.dataclass(frozen=True)
class Stage:
  """One of the things that a run does besides training.

  Attributes:
    name: what it is.
    seconds: seconds it takes, all of them together.
    waits: whether the chips wait for it, or do it.
    size: bytes that it leaves.
    stored: whether these lie in a bucket.
  """

  name: str
  seconds: float
  waits: bool
  size: float = 0.0
  stored: bool = False

  def money(self, price: ChipPrice | None, chips: int) -> float | None:
    """Returns the money for the chips meanwhile; None if not known."""
    if not self.waits:
      return 0.0
    return price and self.seconds / 3600 * chips * price.on_demand

  def money_a_month(self, price: StoragePrice | None) -> float | None:
    """Returns the money for what it leaves, a month; None if not known."""
    if not self.stored:
      return 0.0
    return price and self.size / 2**30 * price.gib_month


def of_run(
  config: TrainConfig,
  gemma: GemmaConfig,
  mesh: Mesh,
  training: float,
  evaluation: float,
  checkpoint: int,
  export: int,
) -> tuple[Stage, ...]:
  """Returns all stages in order.

  Text is counted as long as training, held-out part included. Every host
  tokenises all of it, once, and keeps the tokens. A checkpoint is written by
  all hosts together, while the chips train.

  Args:
    config: the run's config.
    gemma: the language model's sizes.
    mesh: the mesh of devices.
    training: seconds of training.
    evaluation: seconds of the evaluation.
    checkpoint: bytes of a checkpoint.
    export: bytes of all autoencoders.
  """
  hosts = len({device.process_index for device in mesh.devices.flat})
  tokens = config.tokens / (1 - config.data.held_out)
  token_bytes = 2 if gemma.vocab_size <= 2**16 else 4
  saves = _saves(config, training)
  kept = min(saves, config.keep_checkpoints)
  if config.keep_every is not None:
    kept += config.steps // config.keep_every
  return (
    Stage("tokenising", tokens / TOKENS, True, token_bytes * tokens),
    Stage("evaluation", evaluation, True),
    Stage(
      f"checkpoints ({saves:,} written, {kept:,} kept)",
      saves * checkpoint / (hosts * STORAGE),
      False,
      kept * checkpoint,
      True,
    ),
    # One host reads and writes each autoencoder in turn; the others wait.
    Stage("export", 2 * export / STORAGE, True, export, True),
  )


def _saves(config: TrainConfig, training: float) -> int:
  """Returns the number of checkpoints that are written."""
  if isinstance(config.checkpoint_every, int):
    return math.ceil(config.steps / config.checkpoint_every)
  return math.ceil(max(training / config.checkpoint_every.seconds, 1))
