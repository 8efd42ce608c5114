"""Google Cloud Storage as a file system; fsspec makes one for `gs://`."""

import base64
import errno
import functools
import io
import json
import os
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import unquote

from jaxsae.errors import StorageError, UserError
from jaxsae.storage.retries import is_transient, retrying

try:
  import aiohttp
  import google_crc32c
  from gcsfs import core
  from gcsfs.retry import ChecksumError, HttpError
  from google.auth.exceptions import GoogleAuthError
except ImportError as missing:
  raise UserError(
    f"gs:// needs a package that is not there ({missing}); run `pip install"
    ' "jaxsae[gcs]"`.'
  ) from missing

T = TypeVar("T")

# Seconds to connect, and without a byte of an answer; then it is tried again.
CONNECT, SILENCE = 30.0, 60.0
UPLOADS = 5  # times that an upload in several parts may begin
PART_TRIES = 3  # for one part, after which the upload begins anew

_GONE = (204, {}, None, b"")  # the answer to a request to delete something

# gcsfs gives up after six tries; these are its methods without them.
_request_once = core.GCSFileSystem._request.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]


class Refused(PermissionError):
  """The store answered that this account may not do this; it will again."""

  def __str__(self):
    return f"Forbidden: {self.strerror}"  # what gcsfs looks for


class UploadLost(Exception):
  """An upload in several parts cannot go on, and begins anew."""


class Upload(io.BytesIO):
  """A file that is written to the store when it is closed, in one request.

  gcsfs' own takes two or more, and a store that carried out the last one and
  could not say so answers another try as if nothing had been written.
  """

  def __init__(self, put: Callable[[bytes], Any]):
    super().__init__()
    self._put = put

  def close(self) -> None:
    """Writes the file; what is closed once is not written again."""
    if not self.closed:
      content = self.getvalue()
      super().close()
      self._put(content)


class GoogleStorage(core.GCSFileSystem):
  """gcsfs, with longer patience, checked answers and no memory of listings."""

  def __init__(self, *args: Any, finalize_on_close: bool = True, **kwargs: Any):
    del finalize_on_close  # only buckets of the kind "rapid" have this
    kwargs["use_listings_cache"] = False
    kwargs["requests_timeout"] = aiohttp.ClientTimeout(
      total=None, sock_connect=CONNECT, sock_read=SILENCE
    )
    super().__init__(*args, **kwargs)

  async def _request(self, method, path, *args, **kwargs) -> Any:
    where = _readable(self._format_path(path, args))
    if method == "DELETE" and "upload_id=" in path:
      return _GONE  # gcsfs gives up an upload; the store forgets it by itself

    if isinstance(kwargs.get("data"), bytes):
      # Else aiohttp would copy it in one go, and other requests would wait.
      kwargs["data"] = core.UnclosableBytesIO(kwargs["data"])

    async def once(tries: int):
      if tries > PART_TRIES and "upload_id=" in path:
        raise UploadLost
      try:
        answer = await _request_once(self, method, path, *args, **kwargs)
        _check_whole(answer, where)
        return answer
      except FileNotFoundError as error:
        # An earlier try, by us or by aiohttp, which also repeats what it asked
        # on a connection that broke, was carried out and its answer was lost.
        if method == "DELETE":
          return _GONE
        if "upload_id=" in path:
          raise UploadLost from error
        if method == "POST" and "/upload/" in path:
          raise _refused("there is no such bucket", where) from error
        raise
      except (HttpError, OSError, GoogleAuthError) as error:
        if is_transient(error) or not (reason := _refusal(error)):
          raise
        raise _refused(reason, where) from error

    return await retrying(once, where)

  def _open(self, path, mode="rb", *args, **kwargs) -> Any:
    if mode == "wb":
      return Upload(functools.partial(self.pipe_file, path))
    return super()._open(path, mode, *args, **kwargs)

  async def _pipe_file(self, path, *args, **kwargs):
    write = super()._pipe_file
    return await _begun_anew(lambda: write(path, *args, **kwargs), path)

  async def _put_file(self, lpath, rpath, *args, **kwargs):
    write = super()._put_file
    return await _begun_anew(
      lambda: write(lpath, rpath, *args, **kwargs), rpath
    )

  async def _info(self, path, *args, **kwargs):
    try:
      return await super()._info(path, *args, **kwargs)
    except FileNotFoundError as error:
      name = f"gs://{self._strip_protocol(path)}"
      raise FileNotFoundError(
        errno.ENOENT, os.strerror(errno.ENOENT), name
      ) from error


async def _begun_anew(write: Callable[[], Awaitable[T]], path: str) -> T:
  """Returns what `write` does, which is called again if its upload is lost."""
  for _ in range(UPLOADS):
    try:
      return await write()
    except UploadLost:
      continue
  raise StorageError(
    f"gs://{path} was lost {UPLOADS} times while it was written; run the same"
    " command again to go on."
  )


def _check_whole(answer, where: str) -> None:
  """Raises ChecksumError unless all of an answer has arrived."""
  status, headers, _, content = answer
  part = re.fullmatch(
    r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", "")
  )
  if status == 206 and part:
    if len(content) != int(part[2]) - int(part[1]) + 1:
      raise ChecksumError(f"only part of {where} arrived")
  elif status == 200 and "Content-Encoding" not in headers:
    _check_sum(headers, content, where)
    _check_json(headers, content, where)


def _check_sum(headers, content: bytes, where: str) -> None:
  sent = re.search(r"crc32c=([\w+/=]+)", headers.get("X-Goog-Hash", ""))
  if sent:
    found = google_crc32c.value(content).to_bytes(4, "big")
    if base64.b64decode(sent[1]) != found:
      raise ChecksumError(f"{where} did not arrive as it is stored")


def _check_json(headers, content: bytes, where: str) -> None:
  kind = headers.get("Content-Type", "")
  if kind.startswith("application/json") and "alt=media" not in where:
    try:
      json.loads(content or b"{}")
    except ValueError as error:
      raise ChecksumError(f"only part of {where} arrived") from error


def _refusal(error: Exception) -> str:
  """Returns why the store will refuse this again; empty if it will not."""
  code, text = getattr(error, "code", None), " ".join(str(error).split())
  if str(code) == "401" or isinstance(error, GoogleAuthError):
    return f"{text}; log in with `gcloud auth application-default login`"
  if text.startswith("Forbidden: "):
    return f"access is refused: {text.removeprefix('Forbidden: ')}"
  return text if str(code) in ("400", "409") else ""


def _refused(reason: str, where: str) -> Refused:
  return Refused(errno.EACCES, reason, where)


def _readable(url: str) -> str:
  """Returns gs://bucket/name for the URL of an object, or else the URL."""
  found = re.search(r"/b/([^/?]+)(?:/o/([^/?]+))?", url)
  return f"gs://{found[1]}/{unquote(found[2] or '')}" if found else url
