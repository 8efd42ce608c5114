"""The stages of a run, and whether its settings allow all of them.

A run trains, is evaluated, then is exported and explored. What would stop a
later stage is told before the first step, not after the last.
"""

from collections.abc import Iterable, Iterator, Mapping

import jax

from jaxsae import formats
from jaxsae.errors import UserError, first_few
from jaxsae.formats import Format, Published, WholeSet
from jaxsae.lm import GemmaConfig
from jaxsae.train import state as states
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.config.sweep import Stack


def check(config: TrainConfig) -> None:
  """Raises UserError if a run could be trained but never evaluated.

  Whether the text that is held out is enough is checked when it is read.
  """
  if not config.data.held_out:
    raise UserError(
      "data.held_out=0 leaves no text on which the run could be evaluated and"
      " explored; give a share of the documents, as in --data.held_out=0.05."
    )


def notes(config: TrainConfig, gemma: GemmaConfig) -> Iterator[str]:
  """Yields a line for autoencoders that the default format cannot hold."""
  told: dict[str, list[Stack]] = {}
  for stack in config.stacks:
    refused = _refusals(stack, gemma, _alone())
    if formats.DEFAULT in refused:
      told.setdefault(_told(refused), []).append(stack)
  for said, stacks in told.items():
    yield f"note: {first_few(list(map(str, stacks)))} can be {said}"


def _told(refused: Mapping[str, str]) -> str:
  """Returns what can be done with an autoencoder that formats refuse."""
  holding = [name for name in _alone() if name not in refused]
  if not holding:
    reasons = "; ".join(dict.fromkeys(refused.values()))
    return f"trained, evaluated and explored, but not exported: {reasons}"
  why = refused[formats.DEFAULT]
  return f"exported by --format={' or '.join(holding)} only: {why}"


def _alone() -> list[str]:
  """Returns the formats that hold an autoencoder whatever the others are."""
  kept = formats.FORMATS
  return [n for n in formats.written() if not isinstance(kept[n], WholeSet)]


def unheld(
  config: TrainConfig, gemma: GemmaConfig, format: str
) -> dict[str, list[Stack]]:
  """Returns the stacks that a format cannot hold, by the reason.

  Args:
    config: the run's config.
    gemma: the language model's sizes.
    format: the format's name.
  """
  refused: dict[str, list[Stack]] = {}
  for stack in config.stacks:
    for reason in _refusals(stack, gemma, [format]).values():
      refused.setdefault(reason, []).append(stack)
  return refused


def _refusals(
  stack: Stack, gemma: GemmaConfig, names: Iterable[str]
) -> dict[str, str]:
  """Returns why formats cannot hold a stack's autoencoders, by format."""
  published = _published(stack, gemma)
  reasons = {n: _refusal(formats.FORMATS[n], published) for n in names}
  return {name: reason for name, reason in reasons.items() if reason}


def _published(stack: Stack, gemma: GemmaConfig) -> Published:
  """Returns a record of one autoencoder of a stack that has shapes only."""
  d_in, d = stack.taps.d_in(gemma), stack.taps.d(gemma)
  like = states.abstract_stack(stack, d_in, d)
  first = lambda state: next(iter(states.folded(stack, state).values()))
  return Published(jax.eval_shape(first, like), stack.taps, metrics={"l0": 1.0})


def _refusal(format: Format, published: Published) -> str:
  """Returns why a format cannot hold an autoencoder; empty if it can."""
  try:
    format.check(published)
  except UserError as error:
    return str(error).removesuffix(".")
  return ""
