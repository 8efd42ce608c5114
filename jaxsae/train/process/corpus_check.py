"""Summarises the text of a run, and checks that it has not changed."""

import hashlib
import itertools
import re
from collections.abc import Iterator

from etils import epath

from jaxsae.data import Corpus, said_of_ignored
from jaxsae.data.near_duplicates import RUN
from jaxsae.errors import UserError
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.process.workdir import read_record, write_json

RECORD = "corpus.json"
SHOWN = 3  # names in a sentence
MATTERS = 0.01  # share of near-duplicates above which figures may be flattered
MOST = 100_000  # documents; above this, files are not recorded one by one


def summary(corpus: Corpus) -> str:
  """Says in one line how much text there is and what was left out."""
  count = corpus.counts
  return (
    f"{len(corpus.documents):,} documents,"
    f" {len(corpus.held_out.documents):,} of them held out,"
    f" {count['longer']:,} longer than a row of"
    f" {corpus.policy.context} tokens (they go on in the next); left out:"
    f" {count['unreadable']:,} unreadable{_first(corpus.unreadable)},"
    f" {count['empty']:,} empty, {count['duplicates']:,} duplicates,"
    f" {said_of_ignored(corpus.ignored)}{_beside_tables(corpus)}"
  )


def _beside_tables(corpus: Corpus) -> str:
  names = corpus.beside_tables
  if not names:
    return ""
  return (
    f", {len(names):,} texts beside tables{_first(names)}, read with"
    " --data.text_beside_tables=true"
  )


def notes(corpus: Corpus) -> Iterator[str]:
  """Yields a line if the held-out text is to a good part trained on too."""
  near = corpus.near_duplicates()
  if near.found > MATTERS * near.looked_at:
    sought = f"{near.share:.0%}".replace("%", " %")
    yield (
      f"note: {near.found:,} of {near.looked_at:,} held-out documents are"
      " near-duplicates of training text: most of their runs of"
      f" {RUN} tokens are in {'it' if near.share == 1 else f'{sought} of it'},"
      " so figures on held-out text look better than on new text; take copies"
      " out of the source"
    )


def check_passes(config: TrainConfig, corpus: Corpus) -> None:
  """Raises UserError if a run would read its text more often than it may."""
  tokens = corpus.train.tokens
  if config.passes is not None and config.tokens > config.passes * tokens:
    times, needed = config.tokens / tokens, -(-config.tokens // tokens)
    raise UserError(
      f"tokens={config.tokens:,} is more than the {tokens:,} of the text, which"
      f" would be read {times:.3g} times; add --passes={needed} to allow that,"
      f" or give more text or at most --tokens={config.passes * tokens}."
    )


def check(path: epath.Path, corpus: Corpus) -> None:
  """Checks that a run resumes with the text that it started with.

  Args:
    path: the run's folder; `corpus.json` is written there at the start.
    corpus: the text now.

  Raises:
    UserError: the text differs; names the files that changed if they were
      recorded, and otherwise both amounts of text.
  """
  record, now = path / RECORD, _record(corpus)
  if record.exists():
    names = ("fingerprint", "documents", "tokens", "files")
    saved = read_record(record, names)
    if saved["fingerprint"] != now["fingerprint"]:
      raise UserError(
        f"{path} was started with other text: {_difference(saved, now)}. Put"
        " the text back as it was, or start a new run with --workdir=DIR."
      )
  elif not (path / "checkpoints").exists():
    write_json(record, now)


def _record(corpus: Corpus) -> dict:
  few = len(corpus.documents) <= MOST
  return {
    "fingerprint": corpus.fingerprint,
    "documents": len(corpus.documents),
    "tokens": corpus.train.tokens + corpus.held_out.tokens,
    "files": _files(corpus) if few else None,
  }


def _files(corpus: Corpus) -> dict[str, str]:
  """Each file's name → a digest of its documents."""
  documents = zip(corpus.documents, corpus.hashes, strict=True)
  groups = itertools.groupby(
    documents, lambda document: re.sub(r"#\d+$", "", document[0])
  )
  return {
    name: hashlib.blake2b(
      b"".join(name.encode() + digest.tobytes() for name, digest in of_one),
      digest_size=8,
    ).hexdigest()
    for name, of_one in groups
  }


def _difference(saved: dict, now: dict) -> str:
  if saved["files"] is None or now["files"] is None:
    return (
      f"it had {saved['documents']:,} documents, {saved['tokens']:,} tokens in"
      f" rows, and has {now['documents']:,}, {now['tokens']:,} tokens in rows"
    )
  before, after = saved["files"], now["files"]
  kinds = {
    "changed": [n for n in before if after.get(n, before[n]) != before[n]],
    "gone": [name for name in before if name not in after],
    "new": [name for name in after if name not in before],
  }
  return ", ".join(
    f"{len(names):,} files {kind}{_first(names)}"
    for kind, names in kinds.items()
  )


def _first(names: list[str]) -> str:
  """The first few names in brackets; empty if there are none."""
  if not names:
    return ""
  more = "; …" if len(names) > SHOWN else ""
  return f" ({'; '.join(names[:SHOWN])}{more})"
