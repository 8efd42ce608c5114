"""Hours and dollars to reproduce Gemma Scope, predicted by `jaxsae plan`.

  pip install "jaxsae[tpu]"
  python experiments/benchmarks/plans.py --keep=runs/plans --out=docs/PLANS.md

Compiles each kind of run of each grid for each slice, which takes a few minutes
per kind on two cores. Plans that are already in `--keep` are not made again.
"""

import argparse
import json
import os
import pathlib
import shlex
import sys
import time

from jaxsae.plan import compiler_process

HERE = pathlib.Path(__file__).parent.parent
GRIDS = ("gemma_scope_2b", "gemma_scope_9b", "gemma_scope_27b")
SLICES = ("v5p:4x4x4", "v6e:8x8", "v5e:16x16")
# Rows that 64 devices of `data` can share, in buckets of the experiments' size.
FLAGS = ("--mesh.model=4", "--bucket.rows=64", "--bucket.microbatches=4")
GIB = 2**30


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, help="also write it here")
  parser.add_argument(
    "--keep", type=pathlib.Path, required=True, help="folder of the plans"
  )
  parser.add_argument(
    "--compile",
    default=",".join(f"{g}@{s}" for s in SLICES for g in GRIDS),
    help="GRID@SLICE,… to compile (default: all); others get times only",
  )
  options = parser.parse_args()
  found = {
    (grid, slices): planned(grid, slices, options)
    for slices in SLICES
    for grid in GRIDS
  }
  text = "\n".join(page(found))
  print(text)
  if options.out:
    options.out.write_text(text + "\n")


def planned(grid: str, slices: str, options) -> dict:
  """Returns the JSON of `jaxsae plan` for a grid; from `--keep` if present."""
  compiles = f"{grid}@{slices}" in options.compile.split(",")
  kind = "compiled" if compiles else "times"
  file = options.keep / f"{grid}_{slices.replace(':', '_')}_{kind}.json"
  if not file.exists():
    options.keep.mkdir(parents=True, exist_ok=True)
    plan(grid, slices, file, compiles)
  return read(file)


def plan(grid: str, slices: str, file: pathlib.Path, compiles: bool) -> None:
  status = compiler_process.run(
    [
      os.fspath(HERE / f"{grid}.py"),
      f"--topology={slices}",
      f"--compile={str(compiles).lower()}",
      f"--json={file}",
      *FLAGS,
    ]
  )
  if status:
    raise SystemExit(status)


def read(file: pathlib.Path) -> dict:
  found = json.loads(file.read_text())
  return found if "runs" in found else one_run(found)


def one_run(plan: dict) -> dict:
  """Converts the plan of a single run to the form of plans of several runs."""
  sums = ("chip_hours", "cost", "cost_without_overlap", "cost_spot")
  return {
    "runs": {"131k": plan},
    "fits": plan["fits"],
    "compiled_as": {},
    **{name: plan[name] for name in sums},
  }


def page(found: dict) -> list[str]:
  versions = next(iter(run for _, run in runs(found)))["versions"]
  return [
    TITLE.format(
      date=time.strftime("%Y-%m-%d"),
      command=f"python {shlex.join(sys.argv)}",
      flags=" ".join(FLAGS),
      **versions,
    ),
    *sums(found),
    *(line for key, plan in found.items() for line in table(*key, plan)),
    "## Prices\n",
    *dict.fromkeys(price(run) for _, run in runs(found)),
  ]


TITLE = """# Days and dollars to reproduce Gemma Scope

Predictions by `jaxsae plan`; nothing on this page was measured on a TPU. Made
on {date} with jax {jax} and libtpu {libtpu}, on a machine without a TPU:

    {command}

which runs, for each grid and slice,

    jaxsae plan experiments/gemma_scope_2b.py --topology=v5p:4x4x4 \\
      {flags}

*At best* is the roofline at the chip's published peak rates: each part of a
step takes as long as the slowest of arithmetic, memory and communication. *No
overlap* is the sum of the three instead. Real kernels attain neither.
Dollars are for training, on demand except in *spot*. Where *fits* is *not
compiled*, hours and dollars come from the cost model alone.
"""


def sums(found: dict) -> list[str]:
  lines = [
    "## Each grid\n",
    "| grid | slice | fits | days at best | dollars at best | no overlap |"
    " spot | chip-hours |",
    "|---|---|---|---|---|---|---|---|",
  ]
  for (grid, slices), plan in found.items():
    hours = sum(run["hours"] for run in plan["runs"].values())
    cells = [
      f"{grid} ({len(plan['runs'])} runs)",
      slices,
      fits_cell(plan["fits"]),
      f"{hours / 24:,.1f}",
      *(
        f"${plan[name]:,.0f}"
        for name in ("cost", "cost_without_overlap", "cost_spot")
      ),
      f"{plan['chip_hours']:,.0f}",
    ]
    lines.append(f"| {' | '.join(cells)} |")
  return [*lines, ""]


def table(grid: str, slices: str, plan: dict) -> list[str]:
  lines = [
    f"## {grid} on {slices}\n",
    "| run | fits | GiB of a device | step, s | tokens/s | hours at best"
    " | dollars at best | no overlap | checkpoint, GB |",
    "|---|---|---|---|---|---|---|---|---|",
  ]
  for name, run in plan["runs"].items():
    used = run["hbm_bytes_per_device"]
    cells = [
      name + (" ¹" if name in plan["compiled_as"] else ""),
      fits_cell(run["fits"]),
      f"{used / GIB:.1f}" if used else "",
      f"{run['step_seconds_roofline']:.2f}",
      f"{run['tokens_per_second']:,.0f}",
      f"{run['hours']:,.1f}",
      f"${run['cost']:,.0f}",
      f"${run['cost_without_overlap']:,.0f}",
      f"{run['checkpoint_bytes'] / 1e9:,.0f}",
    ]
    lines.append(f"| {' | '.join(cells)} |")
  if plan["compiled_as"]:
    lines.append(
      "\n¹ not compiled; figures are those of the deepest run of its kind."
    )
  return [*lines, ""]


def fits_cell(fits: bool | None) -> str:
  return {True: "yes", False: "no", None: "not compiled"}[fits]


def runs(found: dict):
  for key, plan in found.items():
    for run in plan["runs"].values():
      yield key, run


def price(run: dict) -> str:
  of = run["price"]
  return (
    f"- {of['chip']}: {of['on_demand']} {of['currency']} per chip-hour on"
    f" demand, {of['spot']} as spot, {of['region']}, read {of['date']}:"
    f" {of['source']}"
  )


if __name__ == "__main__":
  main()
