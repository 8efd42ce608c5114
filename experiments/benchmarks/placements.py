"""Seconds and bytes of a sweep in each placement: cost model and compiler.

  pip install "jaxsae[tpu]"
  python experiments/benchmarks/placements.py --out=docs/placements.md

What devices send is counted in the program that the TPU's own compiler makes;
no TPU is needed.
"""

import argparse
import dataclasses
import functools
import pathlib
import time

import jax
from jax.sharding import Mesh

from jaxsae.data import DataConfig
from jaxsae.errors import exit_on_user_error
from jaxsae.lm import GemmaConfig, Site
from jaxsae.mesh import MeshConfig
from jaxsae.plan import compiler_process, hlo
from jaxsae.plan.topology import make_mesh, parse
from jaxsae.train import step as steps
from jaxsae.train.config.run import BucketConfig, SweepConfig, TrainConfig
from jaxsae.train.group import place_stacks
from jaxsae.train.placement import placements
from jaxsae.train.placement.select import bucket_dtype, choose_placements
from jaxsae.train.sources.text import abstract_arguments, read_bucket

TOPOLOGY, DATA, MODEL = "v5p:4x4x4", 16, 4
MB, GIB = 1e6, 2**30

# The 2B's residual stream with nearly empty blocks: only the autoencoders
# matter here.
STUB = GemmaConfig(
  vocab_size=256,
  num_layers=12,
  embed_dim=2304,
  hidden_dim=256,
  num_heads=4,
  num_kv_heads=4,
  head_dim=32,
  query_pre_attn_scalar=32,
)


@dataclasses.dataclass(frozen=True)
class Case:
  """A sweep of `sites` × `members` autoencoders of one width."""

  sites: int
  members: int
  width: int


CASES = [Case(1, 5, 16_384), Case(12, 5, 16_384)]


@exit_on_user_error()
def main():
  compiler_process.enter()
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, help="also write it here")
  options = parser.parse_args()
  lines = [TITLE]
  for case in CASES:
    lines += table(case)
  if options.out:
    options.out.write_text("\n".join(lines))


TITLE = f"""# Placements of autoencoders on a mesh

Gemma Scope's grid of the 2B, d=2304, 4,096 tokens per update, on 64 chips
({TOPOLOGY}) as {DATA} x {MODEL}, in each placement; compiled by the TPU
compiler on a machine without a TPU ({time.strftime("%Y-%m-%d")}, jax
{jax.__version__} and the libtpu that its `jax[tpu]` pins), over a language
model of nearly empty blocks:

    python experiments/benchmarks/placements.py --out=docs/placements.md

Figures are per chip and update. *ms* is the time that the cost model predicts
at the chip's published peak rates. *Sent* is what one chip sends to others in
the loop over updates, as predicted and as compiled; *moved* is what it sends to
bring stacks to their placement and back, once per bucket, as predicted. *Peak*
is the memory of the compiled step.

With by_sae_and_latent, `data` may be divided: autoencoders are sharded over one
part of it as well; [divided.md](divided.md) has what that saves. These tables
have the fastest way to divide it, or not to.

A bucket is spread over all chips: rows over `data`, the numbers of a token over
`model`. A placement is possible only if it fits beside the language model, the
bucket and all other stacks.

Where there are Matryoshka prefixes and a placement splits latents, these are
dealt out on the way there, so that each chip holds its share of every prefix,
and put back in order on the way to rest: one all-to-all along each mesh axis.
The reconstructions of all prefixes are summed over chips. Gemma Scope 2's
recipe, three autoencoders of 65,536 latents at one site on v5e:4x4 as 4 x 4,
sends 22 GB a chip and step in by_sae_and_latent and 73 GB in by_latent
(2026-11-29; with latents in their own order, 230 GB in by_latent).
"""


def table(case: Case) -> list[str]:
  """Returns the heading and table of one case; prints each line when known."""
  count = case.sites * case.members
  lines = [
    f"\n## {count} autoencoders of {case.width:,} latents:"
    f" {case.members} at each of {case.sites} sites\n",
    "| placement | ms | compute | memory | communication | sent MB, predicted"
    " | sent MB, compiled | collectives | moved MB | peak GiB |",
    "|---|---|---|---|---|---|---|---|---|---|",
  ]
  print(*lines, sep="\n", flush=True)
  for name in placements.ALL:
    lines.append(table_line(case, name))
    print(lines[-1], flush=True)
  lines.append(f"\nThe cost model chooses {chosen(case)}.\n")
  print(lines[-1], flush=True)
  return lines


def table_line(case: Case, name: str) -> str:
  """Returns the table's line for one placement of one case."""
  config, mesh = configure(case, name), absent_mesh()
  arguments = abstract_arguments(config, STUB, mesh)
  update = choice(config, mesh, *arguments[:2]).time
  state, lm, _ = arguments
  groups = place_stacks(
    config.stacks, config.schedule, mesh, state.stacks, bucket_dtype(config, lm)
  )
  read = functools.partial(read_bucket, config, mesh)
  compiled = steps.compile_step(read, groups, *arguments)
  sent = hlo.total(hlo.in_updates(compiled.as_text()))
  predicted = update.sent - update.moved / config.updates_per_bucket
  times = (update.seconds, update.compute, update.memory, update.communication)
  cells = [
    str(update.placement),
    *(f"{1e3 * seconds:.2f}" for seconds in times),
    f"{predicted / MB:,.1f}",
    f"{sum(sent.values()) / MB:,.1f}",
    ", ".join(
      f"{size / MB:,.1f} {kind}" for kind, size in sorted(sent.items())
    ),
    f"{update.moved / MB:,.0f}",
    f"{compiled.memory_analysis().peak_memory_in_bytes / GIB:.1f}",
  ]
  return f"| {' | '.join(cells)} |"


def chosen(case: Case) -> str:
  """Returns the placement that the cost model chooses."""
  config, mesh = configure(case, "auto"), absent_mesh()
  state, lm, _ = abstract_arguments(config, STUB, mesh)
  return str(choice(config, mesh, state, lm).placement)


def choice(config, mesh, state, lm):
  """Returns the placement of the only stack, with its predicted time."""
  dtype = bucket_dtype(config, lm)
  (found,) = choose_placements(
    config.stacks, config.schedule, mesh, state.stacks, dtype
  )
  return found


def configure(case: Case, name: str) -> TrainConfig:
  """Returns the config of one case in one placement; 2¹⁸ tokens per bucket."""
  sites = tuple(Site("resid", layer) for layer in range(case.sites))
  return TrainConfig(
    data=DataConfig(context=256),
    sae=SweepConfig(
      sites=sites,
      widths=(case.width,),
      sparsity_coefficient=tuple(1e-4 * (i + 1) for i in range(case.members)),
      placement=name,
    ),
    bucket=BucketConfig(microbatches=16, rows=64, update_tokens=4096),
  )


def absent_mesh() -> Mesh:
  """Returns the mesh of TOPOLOGY, whose chips this machine does not have."""
  return make_mesh(MeshConfig(DATA, MODEL), parse(TOPOLOGY))


if __name__ == "__main__":
  main()
