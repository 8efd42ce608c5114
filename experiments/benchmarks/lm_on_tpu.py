"""Does Gemma 2 fit a TPU slice? The TPU's own compiler says, without a TPU.

pip install "jaxsae[tpu]"
python experiments/benchmarks/lm_on_tpu.py --out=docs/lm_on_tpu.md
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
HBM = {"v5e": 16, "v5p": 95, "v6e": 32}  # GiB a chip, as the makers say
COLLECTIVE = re.compile(
  r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
  r"(?:-start)?\("
)
KERNEL = 'custom_call_target="tpu_custom_call"'


@dataclasses.dataclass(frozen=True)
class Case:
  """One model on one slice; `data` times `model` chips."""

  lm: str
  topology: str
  data: int
  model: int
  fsdp: bool = False


# Tensor parallelism as far as the key heads go, then FSDP over everything.
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
      lines.append(row(case))
      print(lines[-1], flush=True)
  if options.out:
    options.out.write_text("\n".join(lines) + "\n")


TODAY = time.strftime("%Y-%m-%d")
TITLE = f"""# Gemma 2 on TPU slices

Forward pass and next-token loss in bfloat16, one row of {CONTEXT} tokens a
chip, compiled by the TPU compiler on a machine without a TPU ({TODAY},
jax {jax.__version__} and the libtpu that its `jax[tpu]` pins):

    python experiments/benchmarks/lm_on_tpu.py --out=docs/lm_on_tpu.md

HBM, FLOPs and collectives are a chip's. *Peak* is weights and everything else
at its worst moment; *of 2NT* compares the FLOPs the compiler counts with twice
parameters times tokens: attention comes on top, and with fsdp many products
become loops over the shards, of which it counts one turn. *Fused* is how many
calls there are of JAX's splash kernel: one a layer.
"""
TABLE = [
  "| model | slice | data x model | weights GiB | peak GiB | of HBM"
  " | TFLOP | of 2NT | collectives | fused | compiled in |",
  "|---|---|---|---|---|---|---|---|---|---|---|",
]


def row(case: Case) -> str:
  """The table's line for one case."""
  start = time.time()
  compiled, arguments = compile_forward(case)
  seconds = time.time() - start
  text, memory = compiled.as_text(), compiled.memory_analysis()
  kinds = collections.Counter(COLLECTIVE.findall(text))
  peak = memory.peak_memory_in_bytes / GIB
  flops = compiled.cost_analysis()["flops"]
  expected = 2 * count(arguments) * CONTEXT  # one row a chip
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
  """Parameters; the embedding is one product, on the way out."""
  return sum(x.size for x in jax.tree.leaves(params))


def compile_forward(case: Case):
  """The compiled loss of one batch, and its abstract parameters."""
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
