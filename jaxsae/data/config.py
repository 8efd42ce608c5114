"""Settings: which text to read, and how to make rows of it."""

from dataclasses import dataclass

from jaxsae.errors import UserError


@dataclass(frozen=True)
class DataConfig:
  """Settings of a corpus; see `open_corpus`."""

  # File or folder of text, .parquet, .arrow or .array_record, or the word
  # `python-stdlib`: the source files of this Python's own library.
  source: str = "python-stdlib"
  text_column: str = "text"  # column of .parquet and .arrow files
  # Read text files too in a folder that has tables. They are left out, because
  # they describe the tables, as a rule.
  text_beside_tables: bool = False
  context: int = 256  # tokens in a row, BOS included
  # Tokens, by their text or number, that are neither trained on nor counted,
  # as in <start_of_turn>,<end_of_turn> for a tuned model.
  exclude_tokens: tuple[str, ...] = ()
  held_out: float = 0.05  # share of documents kept for evaluation
  # Most documents that are kept for evaluation, however large the text is.
  # None: any number.
  held_out_documents: int | None = 20_000
  documents: int | None = None  # read at most this many, chosen by seed
  seed: int = 0  # chooses documents and the order they are packed in
  cache: str = "~/.cache/jaxsae"  # folder of tokenised corpora

  def __post_init__(self):
    if self.context < 2:
      raise UserError(f"context={self.context} holds no text; use 2 or more")
    if not 0 <= self.held_out < 1:
      raise UserError(
        f"held_out={self.held_out} is not a share of the documents; use a "
        "number from 0 up to, but not including, 1"
      )
    for name in ("documents", "held_out_documents"):
      count = getattr(self, name)
      if count is not None and count < 1:
        raise UserError(f"{name}={count} keeps nothing; use 1 or more")
    if not 0 <= self.seed < 2**32:
      raise UserError(
        f"seed={self.seed} is out of range; use a whole number from 0 to"
        " 2**32 - 1"
      )
