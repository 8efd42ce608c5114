"""A bucket on this machine that speaks as Google's does, and can fail.

Requests go through a proxy, which answers those that a test chose with an
error, late, or with half of the body; all others reach the emulator.
"""

import collections
import contextlib
import http.client
import http.server
import logging
import os
import pathlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self
from urllib.parse import quote

from gcp_storage_emulator.server import create_server

from tests.pods import free_port

NAME = "bucket"
# What may go wrong with a request: it is refused before anything happened, it
# is carried out and the answer is lost, or the answer arrives in part.
KINDS = ("503", "429", "timeout", "lost", "cut")


class Bucket:
  """A server with one bucket, `gs://bucket`; `with` stops it at the end.

  Attributes:
    requests: the method and path of every request so far.
    failed: how many of them a fault met.
  """

  def __init__(self):
    self.requests: list[str] = []
    self.failed = 0
    self._faults: list[tuple[str, Callable[[int, str], bool]]] = []
    self._lock = threading.Lock()
    self._emulator_port = free_port()
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    self._emulator = create_server(
      "127.0.0.1", self._emulator_port, in_memory=True, default_bucket=NAME
    )
    bucket = self
    self._proxy = http.server.ThreadingHTTPServer(
      ("127.0.0.1", 0), type("Proxy", (_Proxy,), {"bucket": bucket})
    )
    self._proxy.daemon_threads = True
    self._ending = contextlib.ExitStack()

  def __enter__(self) -> Self:
    self._emulator.start()
    self._ending.callback(self._emulator.stop)
    serving = threading.Thread(target=self._proxy.serve_forever, daemon=True)
    serving.start()
    self._ending.callback(self._proxy.server_close)
    self._ending.callback(self._proxy.shutdown)
    return self

  def __exit__(self, *_):
    self._ending.close()

  @property
  def environment(self) -> dict[str, str]:
    """The environment variables by which a process finds the bucket."""
    url = f"http://127.0.0.1:{self._proxy.server_address[1]}"
    return {
      "STORAGE_EMULATOR_HOST": url,  # for gcsfs, and Google's own client
      "TENSORSTORE_GCS_HTTP_URL": url,
      "NO_GCE_CHECK": "true",  # nobody looks for credentials
      "GOOGLE_CLOUD_PROJECT": "nobody",
    }

  def fail(self, kind: str, when: Callable[[int, str], bool]) -> None:
    """Lets requests fail from now on.

    Args:
      kind: one of `KINDS`, another HTTP status, or "short": half of the body,
        with its length in the header.
      when: told the number of a request, from 0, and its method and path;
        returns whether it fails.
    """
    with self._lock:
      self._faults.append((kind, when))

  def fail_in_turn(self, every: int) -> None:
    """Lets one in `every` requests fail, each time in another way."""
    for turn, kind in enumerate(KINDS):
      self.fail(
        kind,
        lambda number, _, turn=turn: (
          number % every == 0 and number // every % len(KINDS) == turn
        ),
      )

  def heal(self) -> None:
    """Lets no more requests fail."""
    with self._lock:
      self._faults.clear()

  def download(self, prefix: str, folder: pathlib.Path) -> None:
    """Copies all objects below a prefix to a folder on this machine."""
    for name in self.names(prefix):
      file = folder / name.removeprefix(prefix)
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_bytes(self.read(name))

  def names(self, prefix: str = "") -> list[str]:
    """Lists all objects whose name begins so."""
    found = self._emulator._storage.get_file_list(NAME, prefix)
    return sorted(item["name"] for item in found[0])

  def read(self, name: str) -> bytes:
    """Returns the content of an object."""
    return bytes(self._emulator._storage.get_file(NAME, name))

  def put(self, name: str, content: bytes) -> None:
    """Writes an object, as another process would."""
    path = f"/upload/storage/v1/b/{NAME}/o?uploadType=media&name={quote(name)}"
    status, _, _ = self.forward("POST", path, content, {})
    assert status == 200, status

  def fault(self, request: str) -> str | None:
    """Notes a request, and returns what is to go wrong with it."""
    with self._lock:
      number = len(self.requests)
      self.requests.append(request)
      kinds = [kind for kind, when in self._faults if when(number, request)]
      self.failed += bool(kinds)
      return kinds[0] if kinds else None

  def forward(self, method, path, body, headers):
    """Returns status, headers and body of the emulator's answer."""
    connection = http.client.HTTPConnection("127.0.0.1", self._emulator_port)
    with contextlib.closing(connection):
      connection.request(method, path, body, headers)
      answer = connection.getresponse()
      return answer.status, answer.getheaders(), answer.read()


def first(count: int, pattern: str = "") -> Callable[[int, str], bool]:
  """The next requests that match a pattern, and as many as that."""
  left = iter(range(count))
  return lambda _, request: bool(
    re.search(pattern, request) and next(left, None) is not None
  )


def always(pattern: str = "") -> Callable[[int, str], bool]:
  """Every request that matches a pattern."""
  return lambda _, request: bool(re.search(pattern, request))


def each_at_first() -> Callable[[int, str], bool]:
  """Every request when it is first made, and now and then when made again.

  Uploads of small files, which all have one address, fail in turn. Others may
  be made by many at once, none of which should fail again and again.
  """
  seen: collections.Counter[str] = collections.Counter()

  def is_new(_: int, request: str) -> bool:
    # TensorStore gives every read a name of its own, that nothing caches it.
    request = re.sub("[?&]tensorstore=[0-9a-f]+", "", request)
    seen[request] += 1
    every = 3 if "/upload/" in request else 7
    return seen[request] % every == 1

  return is_new


@contextlib.contextmanager
def here(bucket: Bucket) -> Iterator[None]:
  """Lets this process find the bucket."""
  before = {name: os.environ.get(name) for name in bucket.environment}
  os.environ |= bucket.environment
  try:
    yield
  finally:
    for name, value in before.items():
      os.environ.pop(name) if value is None else os.environ.update(
        {name: value}
      )


class _Proxy(http.server.BaseHTTPRequestHandler):
  """Passes requests on to the emulator of one bucket, or lets them fail."""

  bucket: Bucket
  protocol_version = "HTTP/1.1"

  def handle_any(self):
    size = int(self.headers.get("Content-Length") or 0)
    body = self.rfile.read(size)
    kind = self.bucket.fault(f"{self.command} {self.path}")
    if kind is None:
      self._answer(*self._forwarded(body))
    elif kind.isdecimal():
      self._answer(int(kind), [], b"the test wants it so")
    elif kind == "timeout":
      time.sleep(3600)
    else:
      status, headers, content = self._forwarded(body)
      half = len(content) // 2
      if kind == "short":
        self._answer(status, headers, content[:half])
      elif kind == "cut":
        self._answer(status, headers, content, half)
      self.close_connection = True

  do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any

  def _forwarded(self, body):
    headers = {k: v for k, v in self.headers.items() if k != "Connection"}
    return self.bucket.forward(self.command, self.path, body, headers)

  def _answer(self, status, headers, content, sent=None):
    self.send_response(status)
    for name, value in headers:
      if name.lower() not in ("content-length", "server", "date", "connection"):
        self.send_header(name, value)
    self.send_header("Content-Length", str(len(content)))
    self.end_headers()
    self.wfile.write(content[:sent])

  def log_message(self, *_):
    pass

  def handle(self):
    # gcsfs asks two things at once, and hangs up on the slower one.
    with contextlib.suppress(ConnectionError):
      super().handle()
