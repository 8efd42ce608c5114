"""The formats that autoencoders are read from and written in."""

from jaxsae.formats.circuit_tracer import CircuitTracer
from jaxsae.formats.circuit_tracer_clt import CircuitTracerClt
from jaxsae.formats.dictionary_learning import DictionaryLearning
from jaxsae.formats.format import Format, ReadOnly
from jaxsae.formats.gemma_scope import GemmaScope
from jaxsae.formats.gemma_scope_2 import GemmaScope2
from jaxsae.formats.llama_scope import LlamaScope
from jaxsae.formats.qwen_scope import QwenScope
from jaxsae.formats.sae_lens import SaeLens
from jaxsae.formats.sparsify import Sparsify

# A new format is one new file, and one more entry here.
_ALL: tuple[Format, ...] = (
  GemmaScope(),
  GemmaScope2(),
  SaeLens(),
  Sparsify(),
  DictionaryLearning(),
  LlamaScope(),
  QwenScope(),
  CircuitTracer(),
  CircuitTracerClt(),
)

FORMATS: dict[str, Format] = {format.name: format for format in _ALL}
DEFAULT = GemmaScope.name  # what an export writes unless it is told otherwise


def written() -> list[str]:
  """Returns the names of the formats that are written, not only read."""
  return [n for n, x in FORMATS.items() if not isinstance(x, ReadOnly)]
