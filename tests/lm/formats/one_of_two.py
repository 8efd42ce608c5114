"""Loads a model as one of two processes of a mesh, and prints its memory.

Run by test_memory.py: `one_of_two.py PATH SIZES PORT PROCESS`. Prints JSON.
"""

import json
import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
from etils import epath  # noqa: F401  loaded here, as code is no model
from jax.sharding import AxisType
from orbax.checkpoint import v1  # noqa: F401

from jaxsae.lm import GemmaConfig, load_lm


def main(path, sizes, port, process):
  address = f"127.0.0.1:{port}"
  jax.config.update("jax_num_cpu_devices", 1)
  jax.distributed.initialize(
    address,
    num_processes=2,
    process_id=int(process),
    coordinator_bind_address=address,
    cluster_detection_method="deactivate",
    initialization_timeout=30,
  )
  mesh = jax.make_mesh((1, 2), ("data", "model"), (AxisType.Auto,) * 2)
  config = GemmaConfig(**json.loads(sizes))
  before = memory("VmRSS")
  lm = load_lm(path, dtype=jnp.bfloat16, mesh=mesh, config=config)
  jax.block_until_ready(lm.params)
  peak, after = memory("VmHWM"), memory("VmRSS")
  leaves = jax.tree.leaves(lm.params)
  ours = [x.addressable_shards[0].data for x in leaves]
  print(
    json.dumps(
      {
        "took": peak - before,
        "kept": after - before,
        "whole": sum(x.nbytes for x in leaves),
        "ours": sum(x.nbytes for x in ours),
        "parts": [part(x) for x in leaves],
      }
    )
  )
  jax.distributed.shutdown()


def part(x):
  """Describes this process's part: its start, shape, first and last value."""
  shard = x.addressable_shards[0]
  begin = [axis.start or 0 for axis in shard.index]
  ends = [float(shard.data[(i,) * x.ndim]) for i in (0, -1)]
  return begin, shard.data.shape, ends


def memory(what) -> int:
  """Returns bytes of memory now (VmRSS) or at most so far (VmHWM).

  `ru_maxrss` would begin with what the process that started this one had.
  """
  with open("/proc/self/status") as file:
    lines = dict(line.split(":") for line in file)
  return int(lines[what].split()[0]) * 1024


if __name__ == "__main__":
  main(*sys.argv[1:])
