"""Memory and FLOPs of Gemma 2 on TPU slices, from the TPU's own compiler.

  pip install "jaxsae[tpu]"
  python experiments/benchmarks/lm_on_tpu.py --out=docs/lm_on_tpu.md

No TPU is needed.
"""

import argparse
import collections
import dataclasses
import pathlib
import re
import time

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from jaxsae.errors import exit_on_user_error
from jaxsae.lm import Lm, config, init_params, next_token_loss, sharding
from jaxsae.mesh import MeshConfig
from jaxsae.plan import compiler_process
from jaxsae.plan.topology import make_mesh, parse

CONTEXT = 1024
GIB = 2**30
HBM = {"v5e": 16, "v5p": 95, "v6e": 32}  # GiB per chip, from Google's pages
COLLECTIVE = re.compile(
  r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
  r"(?:-start)?\("
)
KERNEL = 'custom_call_target="tpu_custom_call"'


@dataclasses.dataclass(frozen=True)
class Case:
  """One model on one slice of `data` × `model` chips."""

  lm: str
  topology: str
  data: int
  model: int
  fsdp: bool = False


# Tensor parallelism up to the number of key heads, then FSDP as well.
CASES = [
  Case("gemma2-2b", "v5e:2x4", 2, 4),
  Case("gemma2-2b", "v5e:2x4", 8, 1, fsdp=True),
  Case("gemma2-2b", "v5p:4x4x4", 16, 4),
  Case("gemma2-2b", "v6e:4x4", 4, 4),
  Case("gemma2-9b", "v5e:2x4", 1, 8),
  Case("gemma2-9b", "v5e:2x4", 8, 1, fsdp=True),
  Case("gemma2-9b", "v5p:4x4x4", 8, 8),
  Case("gemma2-9b", "v5p:4x4x4", 8, 8, fsdp=True),
  Case("gemma2-9b", "v6e:4x4", 2, 8),
  Case("gemma2-27b", "v5e:2x4", 1, 8),
  Case("gemma2-27b", "v5e:2x4", 2, 4, fsdp=True),
  Case("gemma2-27b", "v5p:4x4x4", 8, 8),
  Case("gemma2-27b", "v5p:4x4x4", 8, 8, fsdp=True),
  Case("gemma2-27b", "v6e:4x4", 1, 16),
  Case("gemma2-27b", "v6e:4x4", 4, 4, fsdp=True),
]


@exit_on_user_error()
def main():
  compiler_process.enter()
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, help="also write it here")
  parser.add_argument("--only", default="", help="e.g. gemma2-9b or v6e")
  options = parser.parse_args()
  lines = [TITLE, *TABLE]
  print(*TABLE, sep="\n")
  for case in CASES:
    if options.only in f"{case.lm} {case.topology}":
      lines.append(table_line(case))
      print(lines[-1], flush=True)
  if options.out:
    options.out.write_text("\n".join(lines) + "\n")


TODAY = time.strftime("%Y-%m-%d")
TITLE = f"""# Gemma 2 on TPU slices

Forward pass and next-token loss in bfloat16, one row of {CONTEXT} tokens per
chip, compiled by the TPU compiler on a machine without a TPU ({TODAY},
jax {jax.__version__} and the libtpu that its `jax[tpu]` pins):

    python experiments/benchmarks/lm_on_tpu.py --out=docs/lm_on_tpu.md

HBM, FLOPs and collectives are per chip. *Peak* is the most memory in use at any
moment, weights included. *Of 2NT* divides the FLOPs that the compiler counts by
2 × parameters × tokens: attention adds to them, and with fsdp many products
become loops over the shards, of which it counts one iteration. *Fused* counts
the calls of JAX's splash kernel: one per layer.
"""
TABLE = [
  "| model | slice | data x model | weights GiB | peak GiB | of HBM"
  " | TFLOP | of 2NT | collectives | fused | compiled in |",
  "|---|---|---|---|---|---|---|---|---|---|---|",
]


def table_line(case: Case) -> str:
  """Returns the table's line for one case."""
  start = time.time()
  compiled, arguments = compile_forward(case)
  seconds = time.time() - start
  text, memory = compiled.as_text(), compiled.memory_analysis()
  kinds = collections.Counter(COLLECTIVE.findall(text))
  peak = memory.peak_memory_in_bytes / GIB
  flops = compiled.cost_analysis()["flops"]
  expected = 2 * count(arguments) * CONTEXT  # one row per chip
  cells = [
    case.lm,
    case.topology,
    f"{case.data} x {case.model}{' fsdp' if case.fsdp else ''}",
    f"{memory.argument_size_in_bytes / GIB:.2f}",
    f"{peak:.2f}",
    f"{peak / HBM[case.topology.split(':')[0]]:.0%}",
    f"{flops / 1e12:.2f}",
    f"{flops / expected:.2f}",
    ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) or "none",
    str(text.count(KERNEL)),
    f"{seconds:.0f} s",
  ]
  return f"| {' | '.join(cells)} |"


def count(params) -> int:
  """Counts the parameters; each is used in one product per token."""
  return sum(x.size for x in jax.tree.leaves(params))


def compile_forward(case: Case):
  """Returns the compiled loss of one batch, and its abstract parameters."""
  mesh = make_mesh(MeshConfig(case.data, case.model), parse(case.topology))
  gemma = config.PUBLISHED[case.lm]()
  place = sharding.placement(gemma, mesh, case.fsdp)
  shapes = jax.eval_shape(lambda: init_params(gemma, jax.random.key(0)))
  params = jax.tree.map_with_path(
    lambda path, x: jax.ShapeDtypeStruct(
      x.shape, jnp.bfloat16, sharding=place(tuple(k.key for k in path))
    ),
    shapes,
  )
  rows = NamedSharding(mesh, PartitionSpec("data", None))
  tokens = jax.ShapeDtypeStruct(
    (case.data * case.model, CONTEXT), jnp.int32, sharding=rows
  )

  @jax.jit
  def loss(params, tokens, segments, positions):
    lm = Lm(params, gemma, mesh=mesh)
    logits = lm.logits(tokens, segments, positions)
    losses, mask = next_token_loss(logits, tokens, segments)
    return losses.sum() / mask.sum()

  return loss.lower(params, tokens, tokens, tokens).compile(), params


if __name__ == "__main__":
  main()
