"""Settings: which text to read, and how to make rows of it."""

from dataclasses import dataclass
from typing import Annotated

from jaxsae import overrides
from jaxsae.overrides import Count, Piece, Place, PlaceOrEmpty, Range, Seed


@dataclass(frozen=True)
class DataConfig:
  """Settings of a corpus; see `open_corpus`."""

  # File or folder of text, .parquet, .arrow or .array_record, or the word
  # `python-stdlib`: the source files of this Python's own library. Empty: to be
  # given before text is read.
  source: PlaceOrEmpty = "python-stdlib"
  text_column: Place = "text"  # column of .parquet and .arrow files
  # Read text files too in a folder that has tables. They are left out, because
  # they describe the tables, as a rule.
  text_beside_tables: bool = False
  context: Annotated[int, Range(2, 2e9)] = 256  # tokens in a row, BOS included
  # Tokens, by their text or number, that are neither trained on nor counted,
  # as in <start_of_turn>,<end_of_turn> for a tuned model.
  exclude_tokens: tuple[Piece, ...] = ()
  held_out: Annotated[float, Range(0, 1, below=True)] = (
    0.05  # share of documents kept for evaluation
  )
  # Most documents that are kept for evaluation, however large the text is.
  # None: any number.
  held_out_documents: Count | None = 20_000
  documents: Count | None = None  # read at most this many, chosen by seed
  seed: Seed = 0  # chooses documents and the order they are packed in
  cache: Place = "~/.cache/jaxsae"  # folder of tokenised corpora

  def __post_init__(self):
    overrides.check(self)
