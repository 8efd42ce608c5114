"""The TPU's compiler compiles the model as intended, without a TPU."""

import functools
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from jaxsae.plan.compiler_process import environment

HERE = pathlib.Path(__file__).parent

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    sys.platform != "linux", reason="the TPU's compiler exists for Linux only"
  ),
]


@functools.cache
def compiled(*arguments):
  """Runs on_tpu.py for one function, row length and placement."""
  done = subprocess.run(
    [sys.executable, HERE / "on_tpu.py", *arguments],
    capture_output=True,
    text=True,
    env=environment(os.environ),
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout)


def kernels(found):
  return found["text"].count('custom_call_target="tpu_custom_call"')


def squares(found, time):
  """Lists arrays whose last axes are the queries and keys of a whole row."""
  return re.findall(rf"\w+\[(?:\d+,)*{time},{time}\]", found["text"])


def test_attention_is_the_fused_kernel_and_stores_no_square():
  found = compiled("logits", "384")
  assert kernels(found) == 4
  assert squares(found, 384) == []


def test_rows_that_the_kernel_does_not_support_use_plain_attention():
  found = compiled("logits", "320")
  assert kernels(found) == 0
  assert "320" in found["text"]


def test_blocks_above_the_last_site_are_not_compiled():
  whole, first = compiled("logits", "384"), compiled("first_layer", "384")
  assert kernels(first) == 1
  assert first["flops"] < 0.3 * whole["flops"]


@pytest.mark.parametrize("fsdp, share", [((), 4), (("fsdp",), 8)])
def test_a_chip_holds_its_share_of_the_weights(fsdp, share):
  found = compiled("logits", "384", *fsdp)
  assert found["arguments"] == pytest.approx(
    found["parameters"] / share, rel=0.02
  )


def test_tensor_parallelism_reduces_twice_a_layer_and_moves_no_weights():
  text = compiled("logits", "384")["text"]
  count = lambda kind: len(re.findall(rf" {kind}(?:-start)?\(", text))
  # Attention and MLP of each layer, and the embedding.
  assert 2 * 4 <= count("all-reduce") <= 2 * 4 + 3
  assert count("all-to-all") + count("collective-permute") == 0
