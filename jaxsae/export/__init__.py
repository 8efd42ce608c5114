"""Autoencoders in the formats that others read, one file per format."""

from jaxsae.export import gemma_scope as gemma_scope
from jaxsae.export.load import load_sae as load_sae
