"""Compiles a step for a TPU slice in every placement; prints what it sends.

Run as a process of its own, because it changes what JAX looks for.
"""

import json
import sys

from jaxsae.mesh import MeshConfig
from jaxsae.plan.topology import make_mesh, parse
from jaxsae.train.placement.placements import ALL
from tests.train import placed


def main(slice_name: str, shape: str, kind: str, *names: str) -> None:
  data, model = map(int, shape.split("x"))
  mesh = make_mesh(MeshConfig(data, model), parse(slice_name))
  found = {
    name: placed.compiled(name, mesh, kind=kind) for name in names or ALL
  }
  print(json.dumps(found))


if __name__ == "__main__":
  main(*sys.argv[1:])
