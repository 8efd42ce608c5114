"""A corpus holds each text once, on a side that only the text decides."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from jaxsae import data
from jaxsae.data import formats
from jaxsae.errors import UserError


def texts_of(rows, corpus, tokenizer):
  """Reassembles the documents from the rows: {name: text}."""
  batch = rows.read(range(len(rows)))
  tokens, document = batch.tokens.ravel(), batch.documents.ravel()
  return {
    corpus.documents[i]: tokenizer.decode(tokens[document == i])
    for i in rows.documents
  }


def test_both_sides_together_hold_all_files(folder, corpus, tokenizer):
  train = texts_of(corpus.train, corpus, tokenizer)
  held_out = texts_of(corpus.held_out, corpus, tokenizer)
  files = {p.name: p.read_text() for p in folder.iterdir()}
  assert not set(train) & set(held_out)
  assert train | held_out == files
  assert train and held_out


def test_every_document_ends_with_eos(corpus, tokenizer):
  tokens = corpus.train.read(range(len(corpus.train))).tokens
  assert (tokens == tokenizer.eos).sum() == len(corpus.train.documents)


def test_a_tokenizer_without_eos_adds_none(config, tokenizer):
  corpus = data.open_corpus(config, dataclasses.replace(tokenizer, eos=None))
  tokens = corpus.train.read(range(len(corpus.train))).tokens
  assert not (tokens == 2).any()


def test_duplicates_are_dropped_and_counted(folder, config, tokenizer):
  once = data.open_corpus(config, tokenizer)
  for path in list(folder.iterdir()):
    (folder / f"zz-{path.name}").write_bytes(path.read_bytes())
  twice = data.open_corpus(config, tokenizer)
  assert twice.duplicates == 40
  assert twice.documents == once.documents


@pytest.mark.parametrize("seed", [1, 2])
def test_only_the_text_decides_the_side(folder, config, tokenizer, seed):
  before = data.open_corpus(config, tokenizer)
  held = texts_of(before.held_out, before, tokenizer).values()
  for path in list(folder.iterdir()):
    path.rename(folder / f"{path.stem[::-1]}-{seed}.rst")
  (folder / "more.md").write_text("one more document")
  moved = dataclasses.replace(config, seed=seed, context=48)
  after = data.open_corpus(moved, tokenizer)
  now = texts_of(after.held_out, after, tokenizer).values()
  assert set(held) <= set(now) <= set(held) | {"one more document"}


def test_held_out_rows_do_not_depend_on_the_seed(config, tokenizer, corpus):
  other = data.open_corpus(dataclasses.replace(config, seed=9), tokenizer)
  rows = range(len(corpus.held_out))
  jax.tree.map(
    np.testing.assert_array_equal,
    other.held_out.read(rows),
    corpus.held_out.read(rows),
  )
  assert other.train.fingerprint != corpus.train.fingerprint


def test_a_limit_takes_that_many_documents(config, tokenizer):
  def names(seed):
    few = dataclasses.replace(config, documents=9, held_out=0, seed=seed)
    return data.open_corpus(few, tokenizer).documents

  assert len(names(0)) == 9
  assert names(0) == names(0) == sorted(names(0))
  assert names(0) != names(1)


def test_the_limited_corpus_keeps_the_sides(config, corpus, tokenizer):
  few = dataclasses.replace(config, documents=25, seed=3, held_out=0.2)
  small = data.open_corpus(few, tokenizer)
  held = set(texts_of(small.held_out, small, tokenizer))
  assert held <= set(texts_of(corpus.held_out, corpus, tokenizer))


@pytest.mark.parametrize("documents", [2, 3, 40])
@pytest.mark.parametrize("share", [1e-9, 0.999999999])
@pytest.mark.parametrize("seed", range(3))
def test_a_share_that_divides_nothing_is_an_error_with_one_that_does(
  config, tokenizer, documents, share, seed
):
  config = dataclasses.replace(
    config, documents=documents, seed=seed, held_out=share
  )
  with pytest.raises(UserError, match=f"none of the {documents} doc") as error:
    data.open_corpus(config, tokenizer)
  enough = str(error.value).split("use --data.held_out=")[1].split(" ")[0]
  corpus = data.open_corpus(
    dataclasses.replace(config, held_out=float(enough)), tokenizer
  )
  assert len(corpus.held_out) and len(corpus.train)


@pytest.mark.parametrize("share", [1e-9, 0.05, 0.999999999])
def test_a_single_document_is_told_as_such(config, tokenizer, tmp_path, share):
  alone = tmp_path / "alone.txt"
  alone.write_text("too short to be divided")
  config = dataclasses.replace(config, source=str(alone), held_out=share)
  with pytest.raises(UserError, match=r"single document.*longer text") as error:
    data.open_corpus(config, tokenizer)
  assert "use --data.held_out" not in str(error.value)
  alone.write_text("long enough to be divided " * 10_000)  # as it says
  corpus = data.open_corpus(
    dataclasses.replace(config, held_out=0.3), tokenizer
  )
  assert len(corpus.held_out) and len(corpus.train)


def test_a_folder_with_one_text_is_divided_like_the_text(
  config, tokenizer, tmp_path
):
  (tmp_path / "one").mkdir()
  book = tmp_path / "one" / "book.txt"
  book.write_text("\n".join(f"line {i} of a long book" for i in range(5000)))
  (tmp_path / "one" / "cover.png").write_bytes(b"")
  of = lambda source: data.open_corpus(
    dataclasses.replace(config, source=str(source)), tokenizer
  )
  assert len(of(book).documents) > 5
  assert of(book.parent).fingerprint == of(book).fingerprint


def test_a_store_that_left_a_lone_text_whole_is_made_again(
  config, tokenizer, tmp_path, monkeypatch
):
  """Older versions divided a text only at its lines."""
  line = tmp_path / "line.txt"
  line.write_text("one long line " * 10_000)
  config = dataclasses.replace(config, source=str(line), held_out=0.3)
  with monkeypatch.context() as older:
    older.setattr(formats, "_CUTS", formats._CUTS[:2])
    with pytest.raises(UserError, match="single document"):
      data.open_corpus(config, tokenizer)
  (marker,) = pathlib.Path(config.cache).glob("*/divided")
  marker.unlink()
  assert len(data.open_corpus(config, tokenizer).documents) > 1


def test_what_is_held_out_does_not_grow_without_bound(config, tokenizer):
  share = dataclasses.replace(config, held_out=0.5, held_out_documents=None)
  whole = data.open_corpus(share, tokenizer)
  count = len(whole.held_out.documents)
  few = dataclasses.replace(share, held_out_documents=count - 1)
  bounded = data.open_corpus(few, tokenizer)
  assert set(bounded.held_out.documents) < set(whole.held_out.documents)
  assert len(bounded.held_out.documents) == count - 1
  both = [*bounded.held_out.documents, *bounded.train.documents]
  assert sorted(both) == list(range(len(whole.documents)))
  assert bounded.fingerprint != whole.fingerprint
  loose = dataclasses.replace(share, held_out_documents=count)
  assert data.open_corpus(loose, tokenizer).fingerprint == whole.fingerprint


def test_nothing_is_held_out_at_zero(config, tokenizer):
  corpus = data.open_corpus(dataclasses.replace(config, held_out=0), tokenizer)
  assert len(corpus.held_out) == 0
  with pytest.raises(UserError, match="nothing is held out") as error:
    data.held_out_batches(corpus, 4)
  share = float(str(error.value).split("--data.held_out=")[1].split(" ")[0])
  more = data.open_corpus(
    dataclasses.replace(config, held_out=share), tokenizer
  )
  assert list(data.held_out_batches(more, 4))


@pytest.mark.parametrize(
  "change",
  [{"context": 1}, {"held_out": 1.0}, {"documents": 0}, {"seed": -1}],
)
def test_settings_out_of_range_are_named(change):
  with pytest.raises(UserError, match=next(iter(change))):
    data.DataConfig(**change)
