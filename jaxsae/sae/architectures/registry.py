"""The architectures that can be trained, by name.

To add one, write its file beside this one and list its class below.
"""

from jaxsae.sae.architectures.architecture import Architecture
from jaxsae.sae.architectures.batch_topk import BatchTopK
from jaxsae.sae.architectures.gated import Gated
from jaxsae.sae.architectures.jumprelu import JumpRelu
from jaxsae.sae.architectures.relu import Relu
from jaxsae.sae.architectures.topk import TopK
from jaxsae.sae.architectures.unnormalised_jumprelu import (
  UnnormalisedJumpRelu,
)

_KINDS: tuple[type[Architecture], ...] = (
  JumpRelu,
  UnnormalisedJumpRelu,
  Relu,
  Gated,
  TopK,
  BatchTopK,
)

ARCHITECTURES: dict[str, type[Architecture]] = {
  kind.name: kind for kind in _KINDS
}


def array_axes() -> dict[str, str]:
  """Returns the axes of every architecture's arrays, by the array's name.

  Raises:
    ValueError: two architectures declare different axes under one name, or an
      axis is neither `D` nor `F`.
  """
  axes: dict[str, str] = {}
  for kind in ARCHITECTURES.values():
    for name, letters in kind.axes.items():
      known = axes.setdefault(name, letters)
      if known != letters or set(letters) - set("DF"):
        raise ValueError(
          f"{kind.__name__} declares the axes {letters} for its array {name!r};"
          " axes are D and F, and equal for all architectures that have an"
          f" array of this name (first declared as {known})."
        )
  return axes
