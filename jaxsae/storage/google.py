"""Google Cloud Storage as a file system; fsspec makes one for `gs://`."""

import base64
import errno
import json
import os
import re
from urllib.parse import unquote

from jaxsae.errors import UserError
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

# Seconds to connect, and without a byte of an answer; then it is tried again.
CONNECT, SILENCE = 30.0, 60.0

# gcsfs gives up after six tries; these are its methods without them.
_request_once = core.GCSFileSystem._request.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]


class Refused(PermissionError):
  """The store answered that this account may not do this; it will again."""

  def __str__(self):
    return f"Forbidden: {self.strerror}"  # what gcsfs looks for


class GoogleStorage(core.GCSFileSystem):
  """gcsfs, with longer patience, checked answers and no memory of listings."""

  def __init__(self, *args, finalize_on_close: bool = True, **kwargs):
    del finalize_on_close  # only buckets of the kind "rapid" have this
    kwargs["use_listings_cache"] = False
    kwargs["requests_timeout"] = aiohttp.ClientTimeout(
      total=None, sock_connect=CONNECT, sock_read=SILENCE
    )
    super().__init__(*args, **kwargs)

  async def _request(self, method, path, *args, **kwargs):
    where = _readable(self._format_path(path, args))

    async def once(tries: int):
      try:
        answer = await _request_once(self, method, path, *args, **kwargs)
        _check_whole(answer, where)
        return answer
      except FileNotFoundError as error:
        # An earlier try was carried out, and its answer was lost.
        if method == "DELETE" and tries:
          return 204, {}, None, b""
        if method == "POST" and "/upload/" in path:
          raise _refused("there is no such bucket", where) from error
        raise
      except (HttpError, OSError, GoogleAuthError) as error:
        if is_transient(error) or not (reason := _refusal(error)):
          raise
        raise _refused(reason, where) from error

    return await retrying(once, where)

  async def _info(self, path, *args, **kwargs):
    try:
      return await super()._info(path, *args, **kwargs)
    except FileNotFoundError as error:
      name = f"gs://{self._strip_protocol(path)}"
      raise FileNotFoundError(
        errno.ENOENT, os.strerror(errno.ENOENT), name
      ) from error


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
  refused = text.startswith("Forbidden: ") or str(code) in ("400", "409")
  return text.removeprefix("Forbidden: ") if refused else ""


def _refused(reason: str, where: str) -> Refused:
  return Refused(errno.EACCES, reason, where)


def _readable(url: str) -> str:
  """Returns gs://bucket/name for the URL of an object, or else the URL."""
  found = re.search(r"/b/([^/?]+)(?:/o/([^/?]+))?", url)
  return f"gs://{found[1]}/{unquote(found[2] or '')}" if found else url
