"""Whole files and folders in a bucket, and what is written there."""

import numpy as np
import pytest
from etils import epath

from jaxsae import errors, files, storage
from jaxsae.errors import UserError
from jaxsae.files import is_finished, whole_file, whole_folder
from jaxsae.formats import load_sae, write_all
from jaxsae.lm import load_lm, save_lm
from jaxsae.storage import retries
from jaxsae.train.checkpoint.corruption import put_aside
from tests import buckets
from tests.formats.test_suite import SWEEP

OUT = epath.Path("gs://bucket/out")


@pytest.fixture(scope="module")
def served():
  with buckets.Bucket() as served, buckets.here(served):
    yield served


@pytest.fixture
def bucket(served, monkeypatch):
  monkeypatch.setattr(retries, "FIRST", 0.01)
  yield served
  served.heal()
  storage.remove("gs://bucket", served.names())


def fill(folder, count=3):
  for number in range(count):
    with whole_file(folder / f"{number}" / "file") as file:
      file.write_text(str(number))


def write(path, count):
  with whole_folder(path) as folder:
    fill(folder, count)


def test_a_file_appears_whole_or_stays_as_it_was(bucket):
  OUT.write_text("old")
  with pytest.raises(ZeroDivisionError), whole_file(OUT) as partial:
    partial.write_text("new")
    raise ZeroDivisionError
  assert bucket.names() == ["out"]
  assert bucket.read("out") == b"old"
  with whole_file(OUT) as partial:
    partial.write_text("new")
  assert bucket.read("out") == b"new"


def test_a_folder_is_unfinished_until_its_last_file(bucket):
  with whole_folder(OUT) as folder:
    fill(folder)
    assert not is_finished(OUT)
    assert bucket.names("out")
  assert is_finished(OUT)
  assert files.files_in(OUT) == ["0/file", "1/file", "2/file"]
  assert len(bucket.names()) == 3  # and nothing else


def test_a_finished_folder_is_never_emptied(bucket):
  fill(OUT)
  with pytest.raises(FileExistsError), whole_folder(OUT):
    pass
  assert len(bucket.names()) == 3


def test_of_two_at_once_the_later_has_the_folder(bucket):
  taken = pytest.raises(UserError, match=r"gs://bucket/out.*another")
  with taken, whole_folder(OUT) as folder:
    fill(folder)
    write(OUT, 2)
  assert files.files_in(OUT) == ["0/file", "1/file"] and is_finished(OUT)


def test_a_failure_leaves_the_folder_of_another_alone(bucket):
  with pytest.raises(ZeroDivisionError), whole_folder(OUT) as folder:
    fill(folder)
    write(OUT, 2)
    raise ZeroDivisionError
  assert files.files_in(OUT) == ["0/file", "1/file"] and is_finished(OUT)


@pytest.mark.parametrize("place", ["gs://bucket/new/file", "gs://bucket/file"])
def test_a_place_is_tried_and_nothing_is_left(bucket, place):
  files.check_writable(place, "give another")
  assert bucket.names() == []
  assert any("POST" in request for request in bucket.requests)


def test_a_bucket_that_is_not_there_is_told_before_the_work(bucket):
  with pytest.raises(UserError, match=r"gs://none/file.*give another"):
    files.check_writable("gs://none/file", "give another")


def test_a_failure_removes_the_folder(bucket):
  with pytest.raises(ZeroDivisionError), whole_folder(OUT) as folder:
    fill(folder)
    raise ZeroDivisionError
  assert bucket.names() == []


def test_what_a_killed_process_left_is_removed_first(bucket):
  """It is killed after each of its requests in turn."""
  for requests in range(12):
    after = len(bucket.requests) + requests
    bucket.fail("503", lambda number, _, after=after: number >= after)
    with storage.patience(0), pytest.raises(errors.StorageError):
      write(OUT, 5)
    bucket.heal()
    assert not is_finished(OUT)
    write(OUT, 2)
    assert files.files_in(OUT) == ["0/file", "1/file"]
    storage.remove(OUT, files.files_in(OUT))


def test_autoencoders_go_to_a_bucket_and_come_back(bucket):
  written = write_all("gemma_scope", SWEEP, str(OUT))
  cards = [file.replace("params.npz", "card.json") for file in written]
  assert bucket.names() == sorted(f"out/{file}" for file in written + cards)
  for file, (_, sae, _) in zip(written, SWEEP, strict=True):
    np.testing.assert_array_equal(load_sae(f"{OUT}/{file}").w_enc, sae.w_enc)
  folder = str(OUT / written[0]).removesuffix("/params.npz")
  np.testing.assert_array_equal(load_sae(folder).w_dec, SWEEP[0][1].w_dec)
  with pytest.raises(UserError, match="out exists; remove it"):
    write_all("gemma_scope", SWEEP, str(OUT))
  with pytest.raises(UserError, match="gs://bucket/none does not exist"):
    load_sae("gs://bucket/none")


def test_a_language_model_goes_to_a_bucket_and_comes_back(bucket):
  lm = load_lm("gemma2-tiny")
  save_lm(lm, OUT)
  read = load_lm(str(OUT))
  assert read.config == lm.config
  assert read.tokenizer.model == lm.tokenizer.model
  with pytest.raises(UserError, match="exists"):
    save_lm(lm, OUT)


def test_a_damaged_checkpoint_is_moved_and_not_lost(bucket):
  checkpoints = epath.Path("gs://bucket/run/checkpoints")
  for name in ("commit_success.txt", "state/d/a", "_METADATA"):
    (checkpoints / "4" / name).write_text(name)
  put_aside(checkpoints, [4])
  assert bucket.names() == [
    "run/damaged/4/_METADATA",
    "run/damaged/4/commit_success.txt",
    "run/damaged/4/state/d/a",
  ]
