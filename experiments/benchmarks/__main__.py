"""Runs every benchmark and writes docs/BENCHMARKS.md.

  make test     # once: sets up the environment
  .venv/bin/python -m experiments.benchmarks

Each benchmark is a script that runs in its own process. Its docstring and its
output become its section, which also says how much of the machine other
processes used meanwhile. With names, only those benchmarks are measured again:

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
  write(modules, args.out, read_sections(args.out) if args.names else {})


def read_sections(page: pathlib.Path) -> dict[str, str]:
  """Returns the sections of a page by heading."""
  _, *sections = page.read_text(encoding="utf-8").split("\n## ")
  return {text.partition("\n")[0]: f"## {text}" for text in sections}


def write(
  modules: list[str], out: pathlib.Path, others: Mapping[str, str]
) -> None:
  """Runs the modules and writes the page, or nothing if one of them fails.

  Args:
    modules: dotted names of the modules to run.
    out: the page's file.
    others: sections to keep, by heading, unless a module has the same heading.
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
The sides of a comparison took turns in one process; times are medians.
"""


def processor() -> str:
  info = pathlib.Path("/proc/cpuinfo")
  text = info.read_text() if info.exists() else ""
  named = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
  return named[1] if named else platform.processor() or platform.machine()


def section(module: str) -> tuple[str, str]:
  """Runs a module; returns the heading and the text of its section."""
  source = pathlib.Path(importlib.util.find_spec(module).origin)
  doc = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8")))
  name, _, body = doc.partition("\n")
  print(f"\n{name}\n", flush=True)
  before, begin = cpu_seconds(), time.monotonic()
  printed = run(module)
  took = time.monotonic() - begin
  others = share_of_others(before, cpu_seconds(), took)
  body = re.sub(r"(?m)^  (?=\S)", "    ", body.strip("\n"))
  duration = (
    f"Took {took:.0f} s on {time.strftime('%Y-%m-%d')}; other processes used"
    f" {others:.0%} of the machine."
  )
  return name, f"## {name}\n\n{body}\n\n{printed}\n{duration}\n"


def run(module: str) -> str:
  """Runs a module and returns its output, which is also shown as it comes."""
  # Both sides of every comparison run on the CPU.
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
  """Returns CPU seconds so far: the machine's and our ended processes'."""
  all_ = psutil.cpu_times()
  waiting = all_.idle + getattr(all_, "iowait", 0.0)
  own = resource.getrusage(resource.RUSAGE_CHILDREN)
  # `user` includes `guest`.
  busy = sum(all_) - waiting - getattr(all_, "guest", 0.0)
  return busy, own.ru_utime + own.ru_stime


def share_of_others(before, after, seconds: float) -> float:
  """Returns the share of all cores that other processes kept busy."""
  busy, own = (b - a for a, b in zip(before, after, strict=True))
  return max(busy - own, 0.0) / (seconds * os.cpu_count())


if __name__ == "__main__":
  main()
