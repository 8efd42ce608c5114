"""Compiles a small Gemma for eight v5e chips and describes it as JSON.

Run as a process of its own, because it changes what JAX looks for.
"""

import json
import sys

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from jaxsae.lm import GemmaConfig, Lm, Site, capture, init_params, sharding
from jaxsae.mesh import MeshConfig
from jaxsae.plan.topology import make_mesh, parse

CONFIG = GemmaConfig(
  vocab_size=1024,
  num_layers=4,
  embed_dim=512,
  hidden_dim=2048,
  num_heads=8,
  num_kv_heads=4,
  head_dim=128,
  query_pre_attn_scalar=128,
  window=100,
)


def main(what: str, time: int, fsdp: bool) -> None:
  mesh = make_mesh(MeshConfig(2, 4), parse("v5e:2x4"))
  place = sharding.placement(CONFIG, mesh, fsdp)
  shapes = jax.eval_shape(lambda: init_params(CONFIG, jax.random.key(0)))
  params = jax.tree.map_with_path(
    lambda path, x: jax.ShapeDtypeStruct(
      x.shape, jnp.bfloat16, sharding=place(tuple(k.key for k in path))
    ),
    shapes,
  )
  rows = NamedSharding(mesh, PartitionSpec("data", None))
  ids = jax.ShapeDtypeStruct((4, time), jnp.int32, sharding=rows)
  compiled = FUNCTIONS[what].lower(Lm(params, CONFIG, mesh=mesh), ids).compile()
  memory = compiled.memory_analysis()
  print(
    json.dumps(
      {
        "text": compiled.as_text(),
        "flops": compiled.cost_analysis()["flops"],
        "arguments": memory.argument_size_in_bytes,
        "parameters": sum(2 * x.size for x in jax.tree.leaves(shapes)),
      }
    )
  )


@jax.jit
def logits(lm, ids):
  return lm.logits(ids, segments=ids, positions=ids)


@jax.jit
def first_layer(lm, ids):
  site = Site("resid", 0)
  return capture(lm, ids, site, segments=ids, positions=ids)[site]


FUNCTIONS = {"logits": logits, "first_layer": first_layer}

if __name__ == "__main__":
  main(sys.argv[1], int(sys.argv[2]), fsdp="fsdp" in sys.argv)
