"""File formats of published autoencoders, one module per format."""

from jaxsae.formats import gemma_scope as gemma_scope
from jaxsae.formats.convert import convert as convert
from jaxsae.formats.format import Format as Format
from jaxsae.formats.format import Path as Path
from jaxsae.formats.format import WholeSet as WholeSet
from jaxsae.formats.load import autoencoders_at as autoencoders_at
from jaxsae.formats.load import format_of as format_of
from jaxsae.formats.load import is_run as is_run
from jaxsae.formats.load import load_sae as load_sae
from jaxsae.formats.load import load_saes as load_saes
from jaxsae.formats.published import Published as Published
from jaxsae.formats.registry import DEFAULT as DEFAULT
from jaxsae.formats.registry import FORMATS as FORMATS
from jaxsae.formats.registry import written as written
from jaxsae.formats.suite import Anew as Anew
from jaxsae.formats.suite import write_all as write_all
from jaxsae.formats.suite import write_release as write_release
from jaxsae.formats.suite import writing as writing
