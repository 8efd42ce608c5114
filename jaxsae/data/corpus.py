"""A corpus: training rows and held-out rows that share no document."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from jaxsae.data import suffixes
from jaxsae.data.config import DataConfig
from jaxsae.data.near_duplicates import NearDuplicates, near_duplicates
from jaxsae.data.packing import RowTable, empty_batch, fill_row, pack
from jaxsae.data.tokens import (
  Store,
  Tokenizer,
  TokenPolicy,
  open_store,
  text_hash,
  token_policy,
)
from jaxsae.errors import UserError
from jaxsae.token_batch import TokenBatch


@dataclass(frozen=True)
class Rows:
  """The rows of T tokens on one side of a corpus."""

  table: RowTable
  store_tokens: np.ndarray  # the flat tokens of the whole corpus
  bos: int
  fingerprint: str  # equal when every row is equal

  def __len__(self) -> int:
    return len(self.table)

  @property
  def context(self) -> int:
    """T, the number of tokens in a row."""
    return self.table.context

  @property
  def tokens(self) -> int:
    """Tokens in all rows, BOS included, padding not."""
    return self.table.tokens

  @property
  def padding(self) -> float:
    """Share of all places that hold no token."""
    return self.table.padding

  @property
  def documents(self) -> np.ndarray:
    """Indices of the documents on this side, sorted."""
    return np.unique(self.table.documents)

  def documents_of(self, rows: Sequence[int]) -> np.ndarray:
    """Indices of the documents that lie in some of the rows, sorted."""
    table = self.table
    segments = [slice(*table.rows[row : row + 2]) for row in rows]
    return np.unique(np.concatenate([table.documents[s] for s in segments]))

  def read(
    self, rows: Sequence[int] | np.ndarray, batch: int | None = None
  ) -> TokenBatch[np.ndarray]:
    """Reads rows by index, as NumPy arrays [B, T].

    Args:
      rows: row indices.
      batch: B; places after the last row are padding. Default: len(rows).
    """
    filled = empty_batch(len(rows) if batch is None else batch, self.context)
    for place, row in enumerate(rows):
      fill_row(filled, place, self.table, int(row), self.store_tokens, self.bos)
    return filled


@dataclass(frozen=True)
class Corpus:
  """Tokenised text, split by document. See `open_corpus`."""

  train: Rows
  held_out: Rows  # in an order that no seed changes
  documents: list[str]  # names, on both sides, indexed by a batch's `documents`
  policy: TokenPolicy  # to be saved with a run
  fingerprint: str  # of everything that decides the rows
  duplicates: int  # documents left out because the same text came before
  empty: int  # documents left out because they are blank
  ignored: Mapping[str, int]  # suffix → files left out because of it
  beside_tables: list[str]  # names of texts left out because there are tables
  unreadable: list[str]  # "name: reason" of each text left out
  longer: int  # documents that do not fit in a row and go on in the next
  hashes: np.ndarray  # [documents, 16] uint8, of the texts
  offsets: np.ndarray  # [documents + 1], where each starts in the flat tokens

  @property
  def counts(self) -> dict[str, int]:
    """Numbers of texts left out, by reason, and of documents longer than T."""
    return {
      "unreadable": len(self.unreadable),
      "empty": self.empty,
      "duplicates": self.duplicates,
      "longer": self.longer,
    }

  def suffix_of(self, document: int) -> str:
    """Returns the suffix of the file that a document is of, such as `.py`."""
    return suffixes.suffix_of(re.sub("#[0-9]+$", "", self.documents[document]))

  def near_duplicates(self) -> NearDuplicates:
    """Counts near-duplicates of training documents among those held out."""
    return near_duplicates(
      self.train.store_tokens, self.offsets, self.held_out.documents
    )


def open_corpus(config: DataConfig, tokenizer: Tokenizer) -> Corpus:
  """Opens the text that `config` names, tokenising it if that is not cached.

  The side a document falls on depends on its text alone: the same text is held
  out in every corpus with the same `held_out`, whatever its name or the seed.
  Where that would be more than `held_out_documents`, fewer are.

  Raises:
    UserError: nothing to read, a damaged file, or a side without a document.
  """
  store = open_store(config, tokenizer)
  policy = token_policy(tokenizer, config.context)
  held, train = _split(store.hashes, config.held_out)
  bound = config.held_out_documents
  bounds = bound is not None and len(held) > bound
  if bounds:  # the rest is trained on
    held, train = held[:bound], np.concatenate([held[bound:], train])
  order = np.random.default_rng(config.seed).permutation(train)
  fingerprint = _digest(
    store.fingerprint,
    asdict(policy),
    config.held_out,
    config.seed,
    *([bound] if bounds else []),
  )
  return _corpus(store, policy, order, held, fingerprint)


def open_held_out(config: DataConfig, tokenizer: Tokenizer) -> Corpus:
  """Opens a text that is held out as a whole, in an order that no seed changes.

  Raises:
    UserError: there is nothing to read, or a file is damaged.
  """
  store = open_store(config, tokenizer)
  policy = token_policy(tokenizer, config.context)
  fingerprint = _digest(store.fingerprint, asdict(policy))
  every, none = _order(store.hashes)[0], np.zeros(0, np.int64)
  return _corpus(store, policy, none, every, fingerprint)


def _corpus(
  store: Store,
  policy: TokenPolicy,
  order: np.ndarray,
  held: np.ndarray,
  fingerprint: str,
) -> Corpus:
  return Corpus(
    train=_rows(store, order, policy, _digest(fingerprint, "train")),
    held_out=_rows(store, held, policy, _digest(fingerprint, "held_out")),
    documents=store.names,
    policy=policy,
    fingerprint=fingerprint,
    duplicates=store.duplicates,
    empty=store.empty,
    ignored=store.listing.ignored,
    beside_tables=store.listing.beside_tables,
    unreadable=store.unreadable,
    longer=int((np.diff(store.offsets) >= policy.context).sum()),
    hashes=store.hashes,
    offsets=store.offsets,
  )


def is_held_out(text: str, share: float) -> bool:
  """Returns whether `held_out=share` keeps this text from training."""
  return int.from_bytes(text_hash(text)[:8], "big") / 2.0**64 < share


def usual_share(corpus: Corpus) -> float:
  """Returns a share that holds out some documents: 0.05 if that is enough."""
  return max(0.05, _dividing_share(_order(corpus.hashes)[1], held=0))


def _split(hashes: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
  """Returns held-out and training documents, sorted by hash for any seed."""
  order, fractions = _order(hashes)
  held = int(np.searchsorted(fractions, share))
  if share > 0 and held in (0, len(order)):
    raise UserError(_no_split(share, fractions, held))
  return order[:held], order[held:]


def _order(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the documents sorted by hash, and each hash as a share of all."""
  keys = np.ascontiguousarray(hashes[:, :8]).view(">u8")[:, 0]
  order = np.argsort(keys, kind="stable")
  return order, keys[order].astype(np.float64) / 2.0**64


def _no_split(share: float, fractions: np.ndarray, held: int) -> str:
  if len(fractions) == 1:
    return (
      f"the text is a single document, and --data.held_out={share} needs"
      " another; give --data.source more or longer text"
    )
  what = "holds out none" if not held else "leaves none"
  rest = "" if not held else " for training"
  return (
    f"--data.held_out={share} {what} of the {len(fractions)} documents{rest};"
    f" use --data.held_out={_dividing_share(fractions, held)} or more documents"
  )


def _dividing_share(fractions: np.ndarray, held: int) -> float:
  """Returns a short number that divides documents, next to what was asked.

  Args:
    fractions: of the documents, sorted; a document is held out if its fraction
      is below the share.
    held: how many would be held out: none or all.
  """
  least, most = float(fractions[0]), float(fractions[-1])
  for digits in range(3, 17):
    unit = 10.0**digits
    share = (
      math.floor(most * unit) / unit
      if held
      else (math.floor(least * unit) + 1) / unit
    )
    if least < share <= most:
      return share
  return most  # documents with equal fractions but for the last


def _rows(
  store: Store, order: np.ndarray, policy: TokenPolicy, fingerprint: str
) -> Rows:
  table = pack(order, store.offsets, policy.context)
  return Rows(table, store.tokens, policy.bos, fingerprint)


def _digest(*parts) -> str:
  data = json.dumps(parts, sort_keys=True).encode()
  return hashlib.blake2b(data, digest_size=16).hexdigest()
