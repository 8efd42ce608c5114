"""The architectures that can be trained, one file each."""

from jaxsae.sae.architectures.alarm import Alarm as Alarm
from jaxsae.sae.architectures.architecture import Architecture as Architecture
from jaxsae.sae.architectures.architecture import UpdateInputs as UpdateInputs
from jaxsae.sae.architectures.architecture import UpdateStats as UpdateStats
from jaxsae.sae.architectures.architecture import UpdateTokens as UpdateTokens
from jaxsae.sae.architectures.batch_topk import BatchTopK as BatchTopK
from jaxsae.sae.architectures.gated import Gated as Gated
from jaxsae.sae.architectures.gated import GatedSae as GatedSae
from jaxsae.sae.architectures.jumprelu import JumpRelu as JumpRelu
from jaxsae.sae.architectures.registry import ARCHITECTURES as ARCHITECTURES
from jaxsae.sae.architectures.registry import array_axes as array_axes
from jaxsae.sae.architectures.relu import Relu as Relu
from jaxsae.sae.architectures.topk import TopK as TopK
from jaxsae.sae.architectures.unnormalised_jumprelu import (
  UnnormalisedJumpRelu as UnnormalisedJumpRelu,
)
