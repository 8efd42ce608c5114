"""Transient errors are retried for a stated time; others are told at once."""

import asyncio
import errno

import aiohttp
import google.api_core.exceptions
import google.auth.exceptions
import pytest
import requests
from gcsfs.retry import HttpError

from jaxsae.errors import StorageError
from jaxsae.storage import retries
from jaxsae.storage.retries import failure_of, is_transient, retrying


def http(code, message=""):
  return HttpError({"code": code, "message": message})


@pytest.mark.parametrize(
  "error",
  [
    http(503),
    http("429"),
    http(401, "Invalid Credentials"),  # a token that has run out
    aiohttp.ClientPayloadError(),
    aiohttp.ServerDisconnectedError(),
    TimeoutError(),
    ConnectionResetError(),
    requests.ConnectionError(),
    google.auth.exceptions.TransportError("no answer"),
    google.auth.exceptions.RefreshError("metadata server: 503"),
    google.api_core.exceptions.ServiceUnavailable("later"),
    OSError("Forbidden: b/x\nrateLimitExceeded"),
  ],
)
def test_these_may_pass(error):
  assert is_transient(error)
  assert failure_of(RuntimeError("of a library")) is None
  wrapped = RuntimeError("of a library")
  wrapped.__cause__ = error
  failure = failure_of(wrapped)
  assert failure is not None and failure.status == 42


@pytest.mark.parametrize(
  "error",
  [
    http(400),
    http(401),
    http(None),
    FileNotFoundError(),
    OSError("Forbidden: b/x"),
    OSError(errno.ENOSPC, "no space left"),
    google.auth.exceptions.RefreshError("invalid_grant: Bad Request"),
    google.auth.exceptions.RefreshError("Reauthentication is needed"),
    ValueError("no JSON"),
  ],
)
def test_these_will_not(error):
  assert not is_transient(error)
  assert failure_of(error) is None


@pytest.mark.parametrize(
  "code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED"]
)
def test_tensorstore_gives_up_in_words(code):
  assert failure_of(ValueError(f"{code}: All 5 retry attempts failed"))


def test_a_damaged_file_is_no_failure_of_the_store():
  error = ValueError("DATA_LOSS: Error reading manifest: CRC-32C checksum")
  assert failure_of(error) is None


def test_pauses_grow_and_their_sum_is_limited(monkeypatch):
  now, pauses = [0.0], []

  async def sleep(seconds):
    pauses.append(seconds)
    now[0] += seconds

  async def fail(_):
    raise ConnectionError("down")

  monkeypatch.setattr(retries.asyncio, "sleep", sleep)
  monkeypatch.setattr(retries.time, "monotonic", lambda: now[0])
  with pytest.raises(StorageError, match="did not answer for"):
    asyncio.run(retrying(fail, "gs://bucket/file"))
  assert sum(pauses) <= retries.PATIENCE < sum(pauses) + retries.LONGEST
  for number, pause in enumerate(pauses):
    whole = min(retries.LONGEST, retries.FIRST * 2**number)
    assert whole / 2 <= pause <= whole
  assert len(set(pauses)) == len(pauses)  # not all processes at once


def test_who_watches_is_told_once(monkeypatch, capsys):
  monkeypatch.setattr(retries, "FIRST", 0.01)
  monkeypatch.setattr(retries, "SILENT", 0.02)

  async def fail(_):
    raise ConnectionError("down")

  with retries.patience(0.3), pytest.raises(StorageError):
    asyncio.run(retrying(fail, "gs://bucket/file"))
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("note: gs://bucket/file does not answer")


def test_tensorstore_waits_about_as_long():
  setting = retries.tensorstore_retries()
  pauses = [
    min(retries.LONGEST, retries.FIRST * 2**n)
    for n in range(setting["max_retries"])
  ]
  assert 0 <= sum(pauses) - retries.PATIENCE < retries.LONGEST
