"""Sparse autoencoders as pure arrays; knows nothing of language models."""

from jaxsae.sae.jumprelu import Kernel as Kernel
from jaxsae.sae.loss import Objective as Objective
from jaxsae.sae.loss import Sums as Sums
from jaxsae.sae.loss import gradients as gradients
from jaxsae.sae.loss import loss as loss
from jaxsae.sae.model import Sae as Sae
from jaxsae.sae.model import fold as fold
