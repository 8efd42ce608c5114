"""A store is made once, is complete, and fits its text and tokenizer."""

import collections
import dataclasses
import json
import os
import threading

import numpy as np
import pytest

from jaxsae import data
from jaxsae.data import tokens
from jaxsae.data.documents import File, Listing, Unreadable
from jaxsae.data.tokens import open_store, token_policy
from jaxsae.errors import UserError


def test_a_second_opening_encodes_nothing(config, tokenizer):
  first = open_store(config, tokenizer)
  encoded = tokenizer.encoded
  second = open_store(config, tokenizer)
  assert tokenizer.encoded == encoded == 40
  np.testing.assert_array_equal(first.tokens, second.tokens)
  assert isinstance(second.tokens, np.memmap)


def test_stores_of_older_versions_are_found(tokenizer):
  listing = Listing(
    root="/texts",
    lone=False,
    files=[File("/texts/a.txt", "a.txt", 5, 7)],
    unreadable=[Unreadable("b.txt", "is not a regular file")],
    ignored=collections.Counter({".png": 2, ".bin": 1}),
  )
  key = tokens._cache_key(data.DataConfig(), listing, tokenizer)
  assert key == "3d626a0ca1a0fd654d55485b670445c2"


def test_a_store_that_cannot_be_opened_is_not_told_as_damaged(
  config, tokenizer, monkeypatch
):
  open_store(config, tokenizer)

  def failing(*_, **__):
    raise OSError(24, "Too many open files")

  monkeypatch.setattr(tokens.np, "load", failing)
  with pytest.raises(UserError, match="Too many open files") as error:
    open_store(config, tokenizer)
  assert "delete" not in str(error.value) and "ulimit -n" in str(error.value)


def test_a_changed_file_is_read_again(folder, config, tokenizer):
  before = open_store(config, tokenizer)
  (folder / "00.txt").write_text("changed")
  after = open_store(config, tokenizer)
  assert before.fingerprint != after.fingerprint


def test_the_fingerprint_ignores_place_and_time(folder, config, tokenizer):
  before = open_store(config, tokenizer)
  moved = folder.rename(folder.parent / "moved")
  os.utime(moved / "00.txt", (0, 0))
  after = open_store(dataclasses.replace(config, source=str(moved)), tokenizer)
  assert before.fingerprint == after.fingerprint


@pytest.mark.parametrize(
  "change", [{"fingerprint": "aa"}, {"eos": None}], ids=str
)
def test_every_tokenizer_has_its_own_store(config, tokenizer, change):
  one = open_store(config, tokenizer)
  other = open_store(config, dataclasses.replace(tokenizer, **change))
  assert one.fingerprint != other.fingerprint


def test_a_large_vocabulary_needs_wider_tokens(config, tokenizer):
  small = open_store(config, tokenizer)
  large = open_store(config, dataclasses.replace(tokenizer, vocab_size=256_000))
  assert (small.tokens.dtype, large.tokens.dtype) == (np.uint16, np.uint32)
  np.testing.assert_array_equal(small.tokens, large.tokens)


def test_tokens_do_not_depend_on_how_documents_are_batched(
  config, tokenizer, monkeypatch
):
  whole = open_store(config, tokenizer)
  monkeypatch.setattr("jaxsae.data.tokens._BATCH_CHARACTERS", 100)
  parts = open_store(
    dataclasses.replace(config, cache=config.cache + "2"), tokenizer
  )
  np.testing.assert_array_equal(whole.tokens, parts.tokens)
  np.testing.assert_array_equal(whole.offsets, parts.offsets)


def test_several_threads_may_make_the_same_store_at_once(config, tokenizer):
  barrier = threading.Barrier(4)

  class Slow(type(tokenizer)):
    def encode(self, texts):
      barrier.wait(10)  # all four are inside before any can finish
      return super().encode(texts)

  stores = []
  threads = [
    threading.Thread(target=lambda: stores.append(open_store(config, Slow())))
    for _ in range(4)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len({store.fingerprint for store in stores}) == 1
  assert len(stores) == 4 and len(os.listdir(config.cache)) == 1


def test_a_failure_leaves_nothing_behind(config, tokenizer):
  class Broken(type(tokenizer)):
    def encode(self, texts):
      raise OSError(28, "No space left on device")

  with pytest.raises(UserError, match=r"No space left.*set cache"):
    open_store(config, Broken())
  assert os.listdir(config.cache) == []


def test_files_left_by_a_killed_process_are_removed(config, tokenizer):
  left = os.path.join(config.cache, ".making-0123")
  os.makedirs(left)
  with open(os.path.join(left, "tokens.npy"), "wb") as file:
    file.write(b"half")
  open_store(config, tokenizer)
  assert len(os.listdir(config.cache)) == 1 and not os.path.exists(left)


def test_an_unwritable_cache_is_named(config, tokenizer, tmp_path):
  (tmp_path / "file").write_text("")
  inside = dataclasses.replace(config, cache=str(tmp_path / "file" / "cache"))
  with pytest.raises(UserError, match="file/cache"):
    open_store(inside, tokenizer)


@pytest.mark.parametrize("name", ["tokens.npy", "hashes.npy", "store.json"])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_damaged_store_is_named(config, tokenizer, name, keep):
  open_store(config, tokenizer)
  (key,) = os.listdir(config.cache)
  path = os.path.join(config.cache, key, name)
  os.truncate(path, int(os.path.getsize(path) * keep))
  with pytest.raises(UserError, match=f"{key} are damaged"):
    open_store(config, tokenizer)


def test_a_pickle_in_the_cache_is_not_loaded(config, tokenizer):
  open_store(config, tokenizer)
  (key,) = os.listdir(config.cache)
  np.save(
    os.path.join(config.cache, key, "hashes.npy"),
    np.array([{}], object),
    allow_pickle=True,
  )
  with pytest.raises(UserError, match="damaged"):
    open_store(config, tokenizer)


def test_the_policy_survives_json(corpus):
  saved = json.loads(json.dumps(dataclasses.asdict(corpus.policy)))
  data.check_policy(saved, corpus.policy)


@pytest.mark.parametrize(
  "change",
  [
    {"tokenizer": "beef"},
    {"bos": 7},
    {"eos": None},
    {"context": 64},
    {"packing": "none"},
  ],
  ids=lambda change: next(iter(change)),
)
def test_a_changed_policy_names_what_differs(tokenizer, change):
  now = token_policy(tokenizer, 32)
  saved = dataclasses.asdict(now)
  with pytest.raises(UserError, match=next(iter(change))) as error:
    data.check_policy(saved | change, now)
  assert str(error.value).count(" was ") == 1
  del saved[next(iter(change))]
  with pytest.raises(UserError, match=next(iter(change))):
    data.check_policy(saved, now)
