"""The formats that autoencoders are read from and written in."""

from jaxsae.formats.format import Format
from jaxsae.formats.gemma_scope import GemmaScope
from jaxsae.formats.sae_lens import SaeLens

# A new format is one new file, and one more entry here.
_ALL: tuple[Format, ...] = (GemmaScope(), SaeLens())

FORMATS: dict[str, Format] = {format.name: format for format in _ALL}
