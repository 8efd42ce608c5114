"""Autoencoders in the formats that others read, one file per format."""

from jaxsae.export import gemma_scope as gemma_scope
from jaxsae.export.folder import FORMATS as FORMATS
from jaxsae.export.folder import write_all as write_all
from jaxsae.export.load import load_sae as load_sae
