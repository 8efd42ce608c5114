"""Requests to a bucket succeed in spite of errors that pass, and only those."""

import time

import pytest
from etils import epath

from jaxsae import storage
from jaxsae.errors import StorageError
from jaxsae.storage import google, retries
from jaxsae.storage.google import Refused
from tests import buckets

FILE = epath.Path("gs://bucket/folder/file")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(retries, "FIRST", 0.01)
  monkeypatch.setattr(google, "UPLOADS", 3)


@pytest.fixture(scope="module")
def served():
  with buckets.Bucket() as served, buckets.here(served):
    yield served


@pytest.fixture
def bucket(served):
  FILE.write_bytes(b"before")
  yield served
  served.heal()


def test_a_file_is_written_in_one_request(bucket):
  before = len(bucket.requests)
  FILE.write_text("now")
  assert len(bucket.requests) == before + 1
  assert bucket.read("folder/file") == b"now"


@pytest.mark.parametrize("kind", ["503", "429", "500", "408", "lost", "cut"])
def test_what_passes_is_tried_again(bucket, kind):
  """Each request fails at first, and has the effect of one that does not."""

  def all_of_them():
    FILE.write_bytes(b"after" * 1000)
    assert FILE.exists() and not FILE.is_dir()
    assert [path.name for path in FILE.parent.iterdir()] == ["file"]
    assert FILE.read_bytes() == b"after" * 1000
    storage.remove(FILE.parent, ["file"])
    assert not FILE.exists()

  all_of_them()
  failed = bucket.failed
  seen = set()
  bucket.fail(kind, lambda _, x: x not in seen and (seen.add(x) or True))
  all_of_them()
  assert bucket.failed >= failed + 6


def test_an_answer_that_is_short_of_its_file_is_not_taken(bucket):
  """Its length is right by the header, so only what was asked for tells."""
  bucket.fail("short", buckets.first(1, "GET /download"))
  assert FILE.read_bytes() == b"before"
  assert bucket.failed


def test_a_silent_bucket_is_asked_again(bucket, monkeypatch):
  monkeypatch.setattr(google, "SILENCE", 0.3)
  bucket.fail("timeout", buckets.first(1, "folder%2Ffile"))
  begin = time.monotonic()
  files = google.GoogleStorage(skip_instance_cache=True)
  assert files.cat_file("bucket/folder/file") == b"before"
  assert 0.3 < time.monotonic() - begin < 5


def test_patience_ends(bucket):
  bucket.fail("503", buckets.always())
  with storage.patience(0.2), pytest.raises(StorageError) as stop:
    FILE.exists()
  assert stop.value.status == 42
  assert "gs://bucket/folder" in str(stop.value)
  assert "run the same command again" in str(stop.value)
  assert "\n" not in str(stop.value)


@pytest.mark.parametrize(
  "status, says", [("403", "403|wants"), ("401", "log in")]
)
def test_a_refusal_is_told_at_once(bucket, status, says):
  bucket.fail(status, buckets.always())
  before = bucket.failed
  with pytest.raises(Refused, match=says):
    FILE.write_text("more")
  assert bucket.failed == before + 1


def test_a_bucket_that_does_not_exist_is_told(bucket):
  with pytest.raises(Refused, match="there is no such bucket"):
    epath.Path("gs://nowhere/file").write_text("more")


def test_what_is_not_there_is_told_as_on_a_disk(bucket):
  with pytest.raises(FileNotFoundError) as stop:
    epath.Path("gs://bucket/nothing").read_text()
  assert stop.value.filename == "gs://bucket/nothing"
  assert stop.value.strerror


def test_what_others_write_is_seen(bucket):
  """Nothing is listed from memory."""
  folder = FILE.parent
  assert [path.name for path in folder.iterdir()] == ["file"]
  bucket.put("folder/other", b"theirs")
  assert [path.name for path in folder.iterdir()] == ["file", "other"]
  assert (folder / "other").exists()
  bucket.put("folder/file", b"theirs")
  assert FILE.read_text() == "theirs"
  storage.remove(folder, ["other"])


def test_a_large_upload_begins_anew_when_it_is_lost(bucket, tmp_path):
  (tmp_path / "large").write_bytes(bytes(6 << 20))
  bucket.fail("lost", buckets.first(1, "POST .*upload_id"))
  storage.upload(tmp_path / "large", FILE)
  assert len(bucket.read("folder/file")) == 6 << 20
