"""No process holds the whole model while it loads, in either format."""

import dataclasses
import functools
import itertools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest

from jaxsae.lm import GemmaConfig, init_params
from jaxsae.lm.formats import config_json, huggingface

pytestmark = pytest.mark.slow

MB = 1_000_000
CONFIG = GemmaConfig(  # 1.5 GB in bfloat16
  vocab_size=16_384,
  num_layers=46,
  embed_dim=1024,
  hidden_dim=4096,
  num_heads=8,
  num_kv_heads=4,
  head_dim=128,
  query_pre_attn_scalar=128,
)
# Memory that a process may need beyond its half of the model, which is 750 MB:
# arrays being read, TensorStore's cache of 100 MB, and what malloc keeps.
SLACK = 450 * MB


def value(path, shape):
  """Makes 0, 1, … 250, 0, … from a start that depends on the path."""
  return pattern(sum(map(ord, "".join(path))) % 4, shape)


@functools.cache  # so few that they take less memory than the model
def pattern(start, shape):
  period = (np.arange(251) + start) % 251
  return np.resize(period.astype(ml_dtypes.bfloat16), shape)


def shapes():
  tree = jax.eval_shape(lambda key: init_params(CONFIG, key), jax.random.key(0))
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {tuple(key.key for key in path): x.shape for path, x in leaves}


def official(path):
  """Writes a checkpoint as released for Gemma 2, but not compressed."""
  import orbax.checkpoint as ocp

  tree = {}
  for names, shape in shapes().items():
    *folder, leaf = (*names, "w") if "mlp" in names else names
    folder = tree.setdefault("/".join(("transformer", *folder)), {})
    folder[leaf] = value(names, shape)
  handler = ocp.PyTreeCheckpointHandler(use_compression=False)
  with ocp.Checkpointer(handler) as writer:
    writer.save(path, tree)


def hugging_face(path):
  """Writes a Hugging Face directory with files of 30 tensors each."""
  from safetensors.numpy import save_file

  path.mkdir()
  config = config_json.config_to_json(CONFIG, bos=2, eos=1, pad=0)
  (path / "config.json").write_text(json.dumps(config))
  leaves = huggingface.leaves(CONFIG)
  for i, some in enumerate(iter(lambda: [*itertools.islice(leaves, 30)], [])):
    tensors = {}
    for leaf in some:
      parts = leaf.split(value(leaf.path, leaf.shape))
      tensors |= dict(
        zip(leaf.names, map(np.ascontiguousarray, parts), strict=True)
      )
    save_file(tensors, path / f"model-{i:05}.safetensors")


@pytest.mark.parametrize("write", [official, hugging_face])
def test_a_process_needs_little_more_than_its_half(write, tmp_path):
  path = tmp_path / "checkpoint"
  write(path)
  size = sum(x.stat().st_size for x in path.rglob("*") if x.is_file())
  assert size > 1400 * MB
  for process, found in enumerate(load_on_two(path)):
    print(
      f"{write.__name__}, process {process}: {found['took'] / MB:.0f} MB at"
      f" most, {found['kept'] / MB:.0f} MB at the end, for"
      f" {found['ours'] / MB:.0f} of {found['whole'] / MB:.0f} MB"
    )
    assert found["ours"] < 0.51 * found["whole"]
    assert found["took"] < found["ours"] + SLACK
    for (names, shape), part in zip(
      shapes().items(), found["parts"], strict=True
    ):
      check_values(names, shape, *part)


def check_values(names, shape, begin, part, ends):
  """Asserts that the first and last values of a part are as written."""
  last = [first + size - 1 for first, size in zip(begin, part, strict=True)]
  whole = value(names, shape)
  assert ends == [whole[tuple(begin)], whole[tuple(last)]]


def load_on_two(path):
  """Loads a model in two processes, on a mesh of 1x2; returns their output."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = str(free.getsockname()[1])
  script = pathlib.Path(__file__).with_name("one_of_two.py")
  sizes = json.dumps(dataclasses.asdict(CONFIG))
  start = lambda i: subprocess.Popen(
    [sys.executable, script, path, sizes, port, str(i)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
    env={
      **os.environ,
      "XLA_FLAGS": "",
      "PYTHONPATH": os.pathsep.join(sys.path),
    },
  )
  both = [start(0), start(1)]
  try:
    said = [process.communicate(timeout=120) for process in both]
  finally:
    for process in both:
      if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
  for process, (_, errors) in zip(both, said, strict=True):
    assert process.returncode == 0, errors
  return [json.loads(out.splitlines()[-1]) for out, _ in said]
