"""Every benchmark, one after the other, into docs/BENCHMARKS.md.

  make test     # once: sets up the environment
  .venv/bin/python -m experiments.benchmarks

Each is a script of its own and runs in a process of its own; its docstring and
what it prints become its section. How much of the machine other processes took
meanwhile is written beside it. With names, only these are measured anew:

  .venv/bin/python -m experiments.benchmarks sae_step scaling
"""

import argparse
import ast
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Mapping

import psutil

from jaxsae.files import whole_file

NAMES = (
  "sae_step sparse_step end_to_end sweep scaling forward_vs_official"
  " checkpoints"
).split()
ROOT = pathlib.Path(__file__).parents[2]
VERSIONS = "jax jaxlib flax torch transformers sae-lens gemma".split()


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  out = ROOT / "docs" / "BENCHMARKS.md"
  parser.add_argument("--out", type=pathlib.Path, default=out)
  parser.add_argument("names", nargs="*", help=f"some of {' '.join(NAMES)}")
  args = parser.parse_args()
  if unknown := set(args.names) - set(NAMES):
    parser.error(f"no benchmark is called {' or '.join(sorted(unknown))}")
  modules = [f"experiments.benchmarks.{name}" for name in args.names or NAMES]
  write(modules, args.out, kept(args.out) if args.names else {})


def kept(page: pathlib.Path) -> dict[str, str]:
  """The sections of a page by their names."""
  _, *sections = page.read_text(encoding="utf-8").split("\n## ")
  return {text.partition("\n")[0]: f"## {text}" for text in sections}


def write(
  modules: list[str], out: pathlib.Path, others: Mapping[str, str]
) -> None:
  """Runs the modules and writes the page, or nothing if one of them fails.

  Args:
    modules: what to run.
    out: the page.
    others: sections to keep, where no module has one of that name.
  """
  sections = dict(others) | dict(map(section, modules))
  with whole_file(out) as partial:
    text = "\n".join([title(), *sections.values()])
    partial.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
  print(f"wrote {out}")


def title() -> str:
  packages = [f"{p} {importlib.metadata.version(p)}" for p in VERSIONS]
  memory = psutil.virtual_memory().total / 2**30
  return f"""# Benchmarks

    python -m experiments.benchmarks

On {os.cpu_count()} cores of {processor()} with
{memory:.0f} GiB of memory; Python {platform.python_version()},
{", ".join(packages)}.
What is compared was measured in one process, in turns; times are medians.
"""


def processor() -> str:
  info = pathlib.Path("/proc/cpuinfo")
  text = info.read_text() if info.exists() else ""
  named = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
  return named[1] if named else platform.processor() or platform.machine()


def section(module: str) -> tuple[str, str]:
  """A module's name for people; its docstring, and what it prints."""
  source = pathlib.Path(importlib.util.find_spec(module).origin)
  doc = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8")))
  name, _, body = doc.partition("\n")
  print(f"\n{name}\n", flush=True)
  before, begin = cpu_seconds(), time.monotonic()
  printed = run(module)
  took = time.monotonic() - begin
  others = share_of_others(before, cpu_seconds(), took)
  body = re.sub(r"(?m)^  (?=\S)", "    ", body.strip("\n"))
  said = (
    f"Took {took:.0f} s on {time.strftime('%Y-%m-%d')}; other processes had"
    f" {others:.0%} of the machine."
  )
  return name, f"## {name}\n\n{body}\n\n{printed}\n{said}\n"


def run(module: str) -> str:
  """What the module prints, which is also shown as it comes."""
  # Both sides of every comparison are on the CPU.
  environment = os.environ | {"JAX_PLATFORMS": "cpu"}
  command = [sys.executable, "-m", module]
  lines = []
  with subprocess.Popen(
    command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
  ) as process:
    for line in process.stdout:
      print(line, end="", flush=True)
      lines.append(line)
  if process.returncode:
    sys.exit(f"error: {' '.join(command)} failed; nothing was written.")
  return "".join(lines)


def cpu_seconds() -> tuple[float, float]:
  """So far: of the machine, of our own processes that have ended."""
  all_ = psutil.cpu_times()
  waiting = all_.idle + getattr(all_, "iowait", 0.0)
  own = resource.getrusage(resource.RUSAGE_CHILDREN)
  # Guests are counted in user, too.
  busy = sum(all_) - waiting - getattr(all_, "guest", 0.0)
  return busy, own.ru_utime + own.ru_stime


def share_of_others(before, after, seconds: float) -> float:
  """The share of all cores that was busy with what is not ours."""
  busy, own = (b - a for a, b in zip(before, after, strict=True))
  return max(busy - own, 0.0) / (seconds * os.cpu_count())


if __name__ == "__main__":
  main()
