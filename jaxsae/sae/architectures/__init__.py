"""The kinds of autoencoder that can be trained, one file each."""

from jaxsae.sae.architectures.architecture import Architecture as Architecture
from jaxsae.sae.architectures.architecture import Ask as Ask
from jaxsae.sae.architectures.architecture import Rows as Rows
from jaxsae.sae.architectures.architecture import Seen as Seen
from jaxsae.sae.architectures.jumprelu import JumpRelu as JumpRelu

Relu = Gated = TopK = BatchTopK = Architecture
