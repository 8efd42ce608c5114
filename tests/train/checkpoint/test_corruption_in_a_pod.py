"""Two processes agree on which checkpoint is intact."""

import json
import os
import subprocess
import sys

import pytest

from tests import cpu, pods

pytestmark = pytest.mark.slow

SCRIPT = """
import json, os, pathlib, sys
index, port, folder, where = int(sys.argv[1]), *sys.argv[2:]
os.environ["JAX_PLATFORMS"] = "cpu"
import jax
jax.distributed.initialize(
  f"127.0.0.1:{port}", 2, index, cluster_detection_method="deactivate",
  coordinator_bind_address=f"127.0.0.1:{port}", initialization_timeout=60,
)
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jaxsae import mesh as meshes
from jaxsae.train.checkpoint import checkpoints
from jaxsae.train.state import StackState, TrainState

mesh = meshes.make(meshes.MeshConfig())
sharded, whole = meshes.shard(mesh, "data"), meshes.shard(mesh)

def stack(w, other):
  return StackState({"w": w}, (), other, other, other)

def at(step):
  layout = TrainState(whole, whole, (stack(sharded, whole),))
  # Each row is a chunk, and not so small that OCDBT keeps it with its name.
  w = lambda: jnp.sin(step + jnp.arange(32000.0)).reshape(16, 2000)
  make = lambda: TrainState(
    jnp.int32(step), jax.random.key(1), (stack(w(), jnp.ones(2)),)
  )
  return jax.jit(make, out_shardings=layout)()

writer = checkpoints.Checkpoints(folder, 3)
for step in (2, 4):
  writer.save(at(step), {"next_batch": step})
writer.close()
multihost_utils.sync_global_devices("saved")
files = pathlib.Path(folder, "4", "state", f"ocdbt.process_{where}", "d")
if index == 0 and where != "none":
  for file in files.iterdir():
    data = file.read_bytes()
    file.write_bytes(data[:600])
multihost_utils.sync_global_devices("corrupted")

read, alone = checkpoints._read, []
def reading(*args):
  try:
    return read(*args)
  except checkpoints.Corrupted as error:
    alone.append(str(error))
    raise
checkpoints._read = reading

reopened = checkpoints.Checkpoints(folder, 3)
state, position = reopened.restore(at(0))
w = at(int(state.step)).stacks[0].sae["w"]
right = bool((state.stacks[0].sae["w"] == w).all())
reopened.save(at(4), {"next_batch": 4})
reopened.close()
print(json.dumps({
  "step": int(state.step), "position": position, "right": right,
  "failed": len(alone), "now": checkpoints.Checkpoints(folder, None).latest,
}))
jax.distributed.shutdown()
"""


def run_two(folder, where):
  port = pods.free_port()
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", SCRIPT, str(i), str(port), str(folder), where],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env={**os.environ, "XLA_FLAGS": cpu.flags(2)},
    )
    for i in range(2)
  ]
  try:
    done = [process.communicate(timeout=120) for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert [process.returncode for process in processes] == [0, 0], done
  said = [json.loads(out.splitlines()[-1]) for out, _ in done]
  return said, [err for _, err in done]


@pytest.mark.parametrize("where", ["0", "1"])
def test_corruption_that_one_process_sees_is_seen_by_both(tmp_path, where):
  said, errors = run_two(tmp_path / "checkpoints", where)
  for one in said:
    assert one["step"] == 2 and one["position"] == {"next_batch": 2}
    assert one["right"] and one["now"] == 4
  # Each reads its own half, so only one of them could notice.
  assert sorted(one["failed"] for one in said) == [0, 1]
  assert "checkpoint 4" in errors[0] and "cannot be used" in errors[0]
  assert "cannot be used" not in errors[1]
  assert [p.name for p in (tmp_path / "damaged").iterdir()] == ["4"]


def test_intact_checkpoints_are_used_by_both(tmp_path):
  said, _ = run_two(tmp_path / "checkpoints", "none")
  assert [one["step"] for one in said] == [4, 4]
  assert all(one["right"] and not one["failed"] for one in said)
  assert not (tmp_path / "damaged").exists()
