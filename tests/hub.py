"""A stand-in for the Hugging Face Hub on loopback, with what it was asked."""

import contextlib
import hashlib
import http.server
import json
import threading
import urllib.parse

COMMIT = "c" * 40


class Hub(http.server.ThreadingHTTPServer):
  """Serves `repos`: name → path → bytes, all at one commit, to readers.

  Attributes:
    repos: what it holds.
    errors: repository → (status, the Hub's code) for its files, or for all.
    asked: method and path of each request.
  """

  daemon_threads = True

  def __init__(self):
    super().__init__(("127.0.0.1", 0), _Handler)
    self.repos = {}
    self.errors = {}
    self.asked = []

  @property
  def url(self):
    return f"http://127.0.0.1:{self.server_address[1]}"

  def downloaded(self):
    """Lists the files that were downloaded."""
    got = (path for method, path in self.asked if method == "GET")
    return sorted(p.split("/", 5)[5] for p in got if "/resolve/" in p)


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"

  def do_GET(self):
    self._answer()

  def do_HEAD(self):
    self._answer()

  def _answer(self):
    path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
    self.server.asked.append((self.command, path))
    words = path.strip("/").split("/")
    if words[:2] == ["api", "models"]:
      self._api("/".join(words[2:4]), words[4:])
    elif words[2:3] != ["resolve"]:
      self._send(404, b"")
    else:
      self._file("/".join(words[:2]), "/".join(words[4:]))

  def _api(self, repo, words):
    status, code = self.server.errors.get(repo, (200, None))
    files = self.server.repos.get(repo)
    if files is None:
      self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
    elif status != 200 and code is None:
      self._send(status, b"{}")
    elif words[1:2] and words[1] not in ("main", COMMIT):
      self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
    elif words[:1] == ["tree"]:
      self._send(200, json.dumps([_entry(*item) for item in files.items()]))
    else:
      about = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": []}
      self._send(200, json.dumps(about))

  def _file(self, repo, name):
    if repo in self.server.errors:
      status, code = self.server.errors[repo]
      self._send(status, b"", {"X-Error-Code": code})
      return
    content = self.server.repos[repo][name]
    etag = hashlib.sha1(content).hexdigest()
    self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

  def _send(self, status, body, headers=None):
    body = body.encode() if isinstance(body, str) else body
    self.send_response(status)
    self.send_header("Content-Length", str(len(body)))
    self.send_header("Content-Type", "application/json")
    for name, value in (headers or {}).items():
      self.send_header(name, value)
    self.end_headers()
    if self.command != "HEAD":
      self.wfile.write(body)

  def log_message(self, *_):
    pass


def _entry(path, content):
  oid = hashlib.sha1(content).hexdigest()
  return {"type": "file", "path": path, "size": len(content), "oid": oid}


@contextlib.contextmanager
def serving():
  """Yields a running Hub."""
  with Hub() as hub:
    thread = threading.Thread(target=hub.serve_forever, args=(0.02,))
    thread.start()
    try:
      yield hub
    finally:
      hub.shutdown()
      thread.join()
