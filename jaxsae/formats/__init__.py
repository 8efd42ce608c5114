"""File formats of published autoencoders, one module per format."""

from jaxsae.formats import gemma_scope as gemma_scope
from jaxsae.formats.load import load_sae as load_sae
from jaxsae.formats.suite import FORMATS as FORMATS
from jaxsae.formats.suite import write_all as write_all
