"""Sparse autoencoders as pure arrays, independent of language models."""

from jaxsae.sae.architectures import ARCHITECTURES as ARCHITECTURES
from jaxsae.sae.architectures import Alarm as Alarm
from jaxsae.sae.architectures import Architecture as Architecture
from jaxsae.sae.architectures import BatchTopK as BatchTopK
from jaxsae.sae.architectures import Gated as Gated
from jaxsae.sae.architectures import GatedSae as GatedSae
from jaxsae.sae.architectures import JumpRelu as JumpRelu
from jaxsae.sae.architectures import Relu as Relu
from jaxsae.sae.architectures import TopK as TopK
from jaxsae.sae.architectures import (
  UnnormalisedJumpRelu as UnnormalisedJumpRelu,
)
from jaxsae.sae.architectures import UpdateInputs as UpdateInputs
from jaxsae.sae.architectures import UpdateStats as UpdateStats
from jaxsae.sae.architectures import UpdateTokens as UpdateTokens
from jaxsae.sae.architectures import array_axes as array_axes
from jaxsae.sae.architectures.architecture import fold as fold
from jaxsae.sae.model import Sae as Sae
from jaxsae.sae.straight_through import Kernel as Kernel
