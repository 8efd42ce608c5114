"""Sparse autoencoders as pure arrays; knows nothing of language models."""

from jaxsae.sae.loss import Penalty as Penalty
from jaxsae.sae.loss import Sums as Sums
from jaxsae.sae.loss import loss as loss
from jaxsae.sae.model import Sae as Sae
from jaxsae.sae.model import fold as fold
