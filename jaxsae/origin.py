"""Where an autoencoder belongs, noted on the value itself.

The note is no field of the autoencoder: autoencoders of different sites have
one type, can be stacked, and share what is compiled. So it is lost in what is
made from an autoencoder, such as by `jax.tree.map` or `replace`.
"""

import dataclasses
from typing import Any, TypeVar

Marked = TypeVar("Marked")
_NAME = "_origin"


@dataclasses.dataclass(frozen=True)
class Origin:
  """What a file or a run says about one of its autoencoders.

  Attributes:
    source: the file or run.
    taps: the sites that it reads and writes, as text such as `resid.12`; None:
      not known.
    model: name or path of its language model, or None.
    before_gain: a transcoder that reads its site before the gain of the norm,
      as Gemma Scope publishes them.
  """

  source: str
  taps: str | None = None
  model: str | None = None
  before_gain: bool = False


def mark(sae: Marked, origin: Origin) -> Marked:
  """Notes on a new autoencoder where it belongs, and returns it."""
  object.__setattr__(sae, _NAME, origin)
  return sae


def origin_of(sae: Any) -> Origin | None:
  """Returns what is noted on an autoencoder, or None."""
  return getattr(sae, _NAME, None)
