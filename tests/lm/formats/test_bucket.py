"""Both kinds of weights load from a bucket as from a disk.

The bucket is that of a server on this machine that speaks as Google's does.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import orbax.checkpoint as ocp
import pytest
from gcp_storage_emulator.server import create_server


@pytest.fixture
def url():
  """Starts a server with one bucket, `bucket`, and yields its URL."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  server = create_server(
    "127.0.0.1", port, in_memory=True, default_bucket="bucket"
  )
  server.start()
  yield f"http://127.0.0.1:{port}"
  server.stop()


def test_gs_paths_load_what_local_ones_do(grouped, saved, url, tmp_path):
  shutil.copytree(saved, tmp_path / "hugging_face")
  with ocp.StandardCheckpointer() as writer:
    writer.save(tmp_path / "orbax", grouped.params)
  sizes = json.dumps(dataclasses.asdict(grouped.config))
  (tmp_path / "sizes.json").write_text(sizes)
  found = run("bucket.py", tmp_path, url)
  assert found.pop("nothing").startswith("gs://bucket/nothing is not a lang")
  assert found == {"hugging_face": True, "orbax": True}


def run(script, folder, url):
  """Runs the script, whose `gs://` is at the URL, and returns its output."""
  done = subprocess.run(
    [sys.executable, pathlib.Path(__file__).with_name(script), folder],
    capture_output=True,
    text=True,
    timeout=120,
    env={
      **os.environ,
      "PYTHONPATH": os.pathsep.join(sys.path),
      "STORAGE_EMULATOR_HOST": url,  # for gcsfs
      "TENSORSTORE_GCS_HTTP_URL": url,
      "EPATH_USE_TF": "false",  # TensorFlow knows Google's own servers only
      "NO_GCE_CHECK": "true",  # nobody looks for credentials
    },
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])
