"""The stages of a run, and whether its settings allow all of them.

A run trains, is evaluated, then is exported and explored. What would stop a
later stage is told before the first step, not after the last.
"""

from collections.abc import Iterable, Iterator

import jax

from jaxsae import formats
from jaxsae.errors import UserError, first_few
from jaxsae.formats import Format, Published
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
  """Yields a line for autoencoders that no format can hold."""
  for reason, stacks in unheld(config, gemma).items():
    yield (
      f"note: {first_few(list(map(str, stacks)))} can be trained, evaluated and"
      f" explored, but not exported: {reason}"
    )


def unheld(
  config: TrainConfig, gemma: GemmaConfig, names: Iterable[str] = ()
) -> dict[str, list[Stack]]:
  """Returns the stacks that no format can hold, by the reason.

  Args:
    config: the run's config.
    gemma: the language model's sizes.
    names: the names of the formats; by default all.
  """
  some = [formats.FORMATS[name] for name in names or formats.FORMATS]
  refused: dict[str, list[Stack]] = {}
  for stack in config.stacks:
    published = _published(stack, gemma)
    reasons = [_refusal(one, published) for one in some]
    if all(reasons):
      refused.setdefault("; ".join(reasons), []).append(stack)
  return refused


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
