"""Compiles a step for a TPU slice in every placement; prints what it sends.

Run as a process of its own, because it changes what JAX looks for.
"""

import json
import sys

from jax.experimental import mesh_utils, topologies
from jax.sharding import AxisType, Mesh

from jaxsae.train.placement import ALL
from tests.train import placed


def main(slice_name: str, data: int, model: int) -> None:
  topology = topologies.get_topology_desc(
    platform="tpu", topology_name=slice_name
  )
  devices = mesh_utils.create_device_mesh(
    (data, model), topology.devices, allow_split_physical_axes=True
  )
  axes = (AxisType.Auto, AxisType.Auto)
  mesh = Mesh(devices, ("data", "model"), axis_types=axes)
  print(json.dumps({name: placed.compiled(name, mesh) for name in ALL}))


if __name__ == "__main__":
  main(sys.argv[1], *map(int, sys.argv[2].split("x")))
