"""Tokenises documents once, into a cache folder that is memory-mapped."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np

from jaxsae.data import formats
from jaxsae.data.config import DataConfig
from jaxsae.data.documents import (
  Document,
  Listing,
  Unreadable,
  list_source,
  read_documents,
)
from jaxsae.errors import UserError
from jaxsae.files import expanded, is_remote, scratch

PACKING = (
  "every segment starts with BOS; documents follow one another and are cut "
  "at row ends; padding only where fewer than two tokens fit"
)
_FORMAT = 1  # of the store; with a new number, old stores are not found
_HASH_BYTES = 16
_DIVIDED = "divided"  # an empty file, which stores of older versions lack
_BATCH_CHARACTERS = 4_000_000  # bounds the memory of tokenising
_BATCH_DOCUMENTS = 1024


class Tokenizer(Protocol):
  """The tokenizer that a corpus needs; `encode` adds no special tokens."""

  bos: int
  eos: int | None  # when there is one, every document ends with it
  vocab_size: int
  fingerprint: str  # hex; equal for tokenizers that encode equally

  def encode(self, texts: list[str], /) -> list[list[int]]: ...


@dataclass(frozen=True)
class TokenPolicy:
  """The settings that made rows of text; saved with a run."""

  tokenizer: str  # fingerprint
  bos: int
  eos: int | None
  context: int
  packing: str = PACKING


@dataclass(frozen=True)
class Store:
  """A tokenised corpus on disk. Duplicates and empty documents are left out."""

  names: list[str]  # of the n documents
  tokens: np.ndarray  # [all tokens] uint16 or uint32, EOS included, no BOS
  offsets: np.ndarray  # [n + 1] int64, where each document starts
  hashes: np.ndarray  # [n, 16] uint8, of the texts
  fingerprint: str  # of names, texts, tokenizer and EOS
  duplicates: int
  empty: int
  ignored: int  # files whose suffix says that they are not text
  unreadable: list[str]  # "name: reason" of each text that was left out
  listing: Listing  # of the source, as it is now


def token_policy(tokenizer: Tokenizer, context: int) -> TokenPolicy:
  """Returns the settings that make rows of `context` tokens of text."""
  return TokenPolicy(
    tokenizer.fingerprint, tokenizer.bos, tokenizer.eos, context
  )


def check_policy(saved: dict, now: TokenPolicy) -> None:
  """Raises UserError if text was made into rows differently before.

  Raises:
    UserError: names every field of `saved` (from JSON) that differs.
  """
  missing = object()
  differing = [
    f"{name} was {saved.get(name)!r} and is now {value!r}"
    for name, value in asdict(now).items()
    if saved.get(name, missing) != value
  ]
  if differing:
    raise UserError(
      "the saved token policy differs: "
      + "; ".join(differing)
      + "; use the saved values or start a new run"
    )


def open_store(config: DataConfig, tokenizer: Tokenizer) -> Store:
  """Opens the tokenised corpus of a source; makes it unless it is cached.

  The key of the cache is the files' names, sizes and times of change, and the
  tokenizer. Two processes may make the same store at once: each writes a
  folder of its own, and the first to finish renames it. What a killed process
  left is removed when the next store is made.

  Raises:
    UserError: the source cannot be read or has no text, or the cache folder
      cannot be written.
  """
  if is_remote(config.cache):
    raise UserError(
      f"cache={config.cache} is not on a disk, and tokens are read in place;"
      " set --data.cache to a folder on a local disk."
    )
  listing = list_source(config.source, config.text_beside_tables)
  cache = expanded(config.cache)
  folder = os.path.join(cache, _cache_key(config, listing, tokenizer))
  if not os.path.isdir(folder):
    _make_store(folder, config, listing, tokenizer)
  store = _load_store(folder, listing)
  if _is_undivided(store, folder):
    shutil.rmtree(folder)
    _make_store(folder, config, listing, tokenizer)
    store = _load_store(folder, listing)
  return store


def _is_undivided(store: Store, folder: str) -> bool:
  """Returns whether an older version left a lone text without lines whole."""
  marked = os.path.exists(os.path.join(folder, _DIVIDED))
  return store.listing.lone and len(store.names) == 1 and not marked


def _make_store(folder: str, config, listing: Listing, tokenizer) -> None:
  cache = os.path.dirname(folder)
  with _writing_to(cache):
    os.makedirs(cache, exist_ok=True)
    with scratch(cache, ".making-") as made:
      _write_store(made, config, listing, tokenizer)
      _rename(made, folder)


@contextlib.contextmanager
def _writing_to(cache: str):
  try:
    yield
  except OSError as error:
    raise UserError(
      f"cannot write tokens to {cache} ({error.strerror}); set cache to a "
      "folder with free space that you may write to"
    ) from error


def _cache_key(config: DataConfig, listing: Listing, tokenizer) -> str:
  what = {
    "format": _FORMAT,
    "source": os.path.abspath(listing.root),
    "files": [[f.name, f.size, f.modified] for f in listing.files],
    "unreadable": [[u.name, u.reason] for u in listing.unreadable],
    "ignored": listing.ignored.total(),
    "lone": listing.lone,
    "column": config.text_column,
    "documents": config.documents,
    "seed": None if config.documents is None else config.seed,
    "tokenizer": [tokenizer.fingerprint, tokenizer.eos, tokenizer.vocab_size],
  }
  return hashlib.blake2b(
    json.dumps(what).encode(), digest_size=_HASH_BYTES
  ).hexdigest()


def _write_store(folder, config, listing, tokenizer) -> None:
  """Reads, tokenises and writes a source in bounded memory."""
  about = {
    "duplicates": 0,
    "empty": 0,
    "ignored": listing.ignored.total(),
    "unreadable": [f"{u.name}: {u.reason}" for u in listing.unreadable],
  }
  documents = read_documents(
    listing, config.text_column, config.documents, config.seed
  )
  hashes: dict[bytes, str] = {}  # in order, with the documents' names
  fresh = _keep_new(documents, hashes, about)
  lengths = _write_tokens(os.path.join(folder, "tokens.npy"), fresh, tokenizer)
  if not hashes:
    raise UserError(_no_text(config.source, about))
  names = list(hashes.values())
  digests = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, _HASH_BYTES)
  np.save(os.path.join(folder, "offsets.npy"), np.cumsum([0, *lengths]))
  np.save(os.path.join(folder, "hashes.npy"), digests)
  about |= {"names": names, "fingerprint": _fingerprint(hashes, tokenizer)}
  with open(os.path.join(folder, "store.json"), "w") as file:
    json.dump(about, file)
  pathlib.Path(folder, _DIVIDED).touch()


def _keep_new(documents, hashes, about) -> Iterator[Document]:
  for document in documents:
    if isinstance(document, Unreadable):
      about["unreadable"].append(f"{document.name}: {document.reason}")
    elif not document.text.strip():
      about["empty"] += 1
    else:
      digest = text_hash(document.text)
      if digest in hashes:
        about["duplicates"] += 1
      else:
        hashes[digest] = document.name
        yield document


def text_hash(text: str) -> bytes:
  """Returns 16 bytes that depend on the text alone."""
  data = text.encode("utf-8", "surrogatepass")
  return hashlib.blake2b(data, digest_size=_HASH_BYTES).digest()


def _write_tokens(path, documents, tokenizer) -> list[int]:
  """Writes all tokens as one flat .npy; returns each document's length."""
  small = tokenizer.vocab_size <= 2**16
  dtype = np.dtype("<u2" if small else "<u4")
  ending = [] if tokenizer.eos is None else [tokenizer.eos]
  lengths = []
  with open(path, "wb") as file:
    _write_header(file, dtype, 0)
    begin = file.tell()
    for texts in _text_batches(documents):
      for ids in tokenizer.encode(texts):
        np.array([*ids, *ending], dtype).tofile(file)
        lengths.append(len(ids) + len(ending))
    # numpy leaves room in the header for the length to grow in place.
    file.seek(0)
    _write_header(file, dtype, sum(lengths))
    if file.tell() != begin:
      raise RuntimeError("the .npy header changed its size")
  return lengths


def _write_header(file, dtype: np.dtype, length: int) -> None:
  descr = np.lib.format.dtype_to_descr(dtype)
  header = {"descr": descr, "fortran_order": False, "shape": (length,)}
  np.lib.format.write_array_header_1_0(file, header)


def _text_batches(documents) -> Iterator[list[str]]:
  batch, characters = [], 0
  for document in documents:
    batch.append(document.text)
    characters += len(document.text)
    if characters >= _BATCH_CHARACTERS or len(batch) == _BATCH_DOCUMENTS:
      yield batch
      batch, characters = [], 0
  if batch:
    yield batch


def _fingerprint(hashes: dict[bytes, str], tokenizer: Tokenizer) -> str:
  whole = hashlib.blake2b(digest_size=_HASH_BYTES)
  whole.update(json.dumps([tokenizer.fingerprint, tokenizer.eos]).encode())
  for digest, name in hashes.items():
    whole.update(digest + text_hash(name))
  return whole.hexdigest()


def _rename(made: str, folder: str) -> None:
  try:
    os.rename(made, folder)
  except OSError:
    if not os.path.isdir(folder):  # else another process was first
      raise


def _load_store(folder: str, listing: Listing) -> Store:
  try:
    with open(os.path.join(folder, "store.json")) as file:
      about = json.load(file)
    tokens, offsets, hashes = (
      np.load(os.path.join(folder, f"{name}.npy"), "r", allow_pickle=False)
      for name in ("tokens", "offsets", "hashes")
    )
    arrays = {"tokens": tokens, "offsets": offsets, "hashes": hashes}
    store = Store(**arrays, listing=listing, **about)
    _check_store(store)
  except (OSError, ValueError, TypeError, EOFError) as error:
    if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
      raise formats.cannot_read(folder, error) from error
    raise UserError(
      f"the tokens in {folder} are damaged ({error}); delete that folder"
    ) from error
  return store


def _check_store(store: Store) -> None:
  count = len(store.names)
  intact = (
    store.tokens.ndim == 1
    and store.tokens.dtype in ("<u2", "<u4")
    and store.offsets.shape == (count + 1,)
    and store.offsets.dtype == "<i8"
    and store.hashes.shape == (count, _HASH_BYTES)
    and store.offsets[0] == 0
    and store.offsets[-1] == len(store.tokens)
    and bool((np.diff(store.offsets) >= 0).all())
  )
  if not intact:
    raise ValueError("its arrays do not fit together")


def _no_text(source: str, about: dict) -> str:
  first = f", first {about['unreadable'][0]}" if about["unreadable"] else ""
  return (
    f"{source} has no text in it ({about['empty']} empty documents, "
    f"{len(about['unreadable'])} unreadable{first}); give a source with text"
  )
