"""The protocol of alarms: how an architecture tells that training fails."""

from collections.abc import Mapping
from typing import Protocol


class Alarm(Protocol):
  """An alarm follows the figures of one autoencoder while it trains.

  It is heard once: after its first message it is asked no more.
  """

  def observe(self, step: int, figures: Mapping[str, float]) -> str | None:
    """Returns a message if something is wrong, or else None.

    Args:
      step: the number of the bucket, from 1; not every bucket is shown.
      figures: `l0`, the mean number of active latents, and the figures of
        `Architecture.diagnose`, by name.

    Returns:
      What is wrong and what may help, as a clause with a full stop.
    """
    ...
