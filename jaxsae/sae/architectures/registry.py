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
    ValueError: two architectures give one name different axes.
  """
  axes: dict[str, str] = {}
  for kind in ARCHITECTURES.values():
    for name, letters in kind.axes.items():
      if axes.setdefault(name, letters) != letters:
        raise ValueError(
          f"the array {name} has axes {letters} in {kind.__name__} and"
          f" {axes[name]} in another architecture; rename one of them."
        )
  return axes
