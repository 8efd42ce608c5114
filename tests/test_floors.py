"""A module imports only from floors below or from its own package."""

import ast
import functools
import graphlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up. Those on one floor never import one another.
FLOORS = [
  {"terminal", "tables"},
  {"brief", "errors", "origin", "process", "renamed"},
  {"latents", "token_batch"},
  {"storage"},
  {"files", "overrides"},
  {"mesh", "pod"},
  {"chips", "lm", "data", "sae"},
  {"formats"},
  {"evals"},
  {"explore"},
  {"app.axes", "app.pages"},
  {"app.evaluation", "app.report"},  # pages of what `evals`, `explore` found
  {"train.config"},
  {"train.placement", "train.process"},
  {"train.optim"},
  {"train.state"},
  {"train.group"},
  {"train.update"},
  {"train.metrics", "train.outliers"},
  {"train.step"},
  {"train.memory"},
  {"train.sources"},
  {"train.arrays"},
  {"train.checkpoint"},
  {"train.monitor"},
  {"train.loop"},
  {"train"},
  {"runs"},
  {"plan"},  # of whole sets of runs
  {"app"},
  {"cli", "experiments"},
  {"__main__"},
  {"launch"},  # works from a bare checkout, so it imports nothing of these
]
FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}

# Third party to the only modules, or packages of them, that may import it, so
# that an upgrade breaks one file.
HOMES = {
  "flax.linen": ["jaxsae.lm"],
  "optax": ["jaxsae.train", "experiments.pretraining"],
  "orbax": [
    "jaxsae.train.checkpoint.checkpoints",
    "jaxsae.lm.formats.orbax_tree",
  ],
  "grain": ["jaxsae.data"],
  "sklearn": ["jaxsae.evals.downstream.logistic"],
}


# On a machine, where launch copies them, these lie beside one another.
COPIED = {"launch.host.host": {"prepare"}}

# The one experiment whose training is not the house's.
PRETRAINING = ("experiments.pretrain_tiny", "experiments.pretraining")


@functools.cache
def sources():
  """Dotted name to source of every module in the house."""
  found = {}
  for folder in ("jaxsae", "experiments", "launch"):
    for path in sorted((ROOT / folder).rglob("*.py")):
      parts = path.relative_to(ROOT).with_suffix("").parts
      name = ".".join(parts).removesuffix(".__init__")
      found[name] = path.read_text(encoding="utf-8")
  return found


def imports(source):
  """Dotted names that `source` imports anywhere, inside functions too."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"line {node.lineno}: write the import in full"
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_in(name, package):
  return name == package or name.startswith(f"{package}.")


def part(name):
  """The part of the house that a dotted name lies in; None if in none.

  What is in no part but in `jaxsae` itself is at its door, "".
  """
  for apart in ("experiments", "launch"):
    if is_in(name, apart):
      return apart
  if not is_in(name, "jaxsae"):
    return None
  names = name.removeprefix("jaxsae").removeprefix(".").split(".")
  known = (".".join(names[:depth]) for depth in range(len(names), 0, -1))
  return next((some for some in known if some in FLOOR), "")


def violations(name, source):
  """The imports that module `name` should not have, each with its reason."""
  for imported in imports(source):
    for guest, homes in HOMES.items():
      if is_in(imported, guest) and not any(is_in(name, h) for h in homes):
        yield f"{imported}: only {homes} may import it"
    if part(imported) is not None and not may_import(name, imported):
      yield f"{imported}: it is not on a floor below"
    if imported in COPIED.get(name, ()):
      continue
    if part(name) == "launch" != part(imported) and not is_bare(imported):
      yield f"{imported}: launch needs the standard library and nothing else"


def is_bare(imported):
  """Returns whether a module is in Python's standard library."""
  return imported.split(".")[0] in sys.stdlib_module_names


def may_import(name, imported):
  here, there = part(name), part(imported)
  if name == "jaxsae":  # the door shows what is on every floor
    return True
  if there == "":  # only those outside come through the door
    return here == "experiments"
  if here == there == "experiments":  # only what lies in a folder of its own
    if (name, imported.rpartition(".")[0]) == PRETRAINING:
      return True
    package = name.rpartition(".")[0]
    return package != "experiments" and is_in(imported, package)
  return here == there or FLOOR[there] < FLOOR[here]


def cycles(modules):
  """A cycle of imports among `modules` (name to source), or None."""
  graph = {
    name: {module_of(imported, modules) for imported in imports(source)}
    - {None, name}
    for name, source in modules.items()
  }
  try:
    graphlib.TopologicalSorter(graph).prepare()
  except graphlib.CycleError as error:
    return error.args[1]


def module_of(imported, modules):
  """The module behind `imported`, which may name something inside it."""
  parent = imported.rpartition(".")[0]
  return next((name for name in (imported, parent) if name in modules), None)


def test_every_module_stands_on_a_floor():
  astray = [name for name in sources() if not part(name) and name != "jaxsae"]
  assert astray == []


@pytest.mark.parametrize("name", sources())
def test_a_module_imports_only_from_below(name):
  assert list(violations(name, sources()[name])) == []


def test_no_module_is_in_a_cycle_of_imports():
  assert cycles(sources()) is None


@pytest.mark.parametrize(
  "name, source",
  [
    ("jaxsae.sae.model", "from jaxsae.lm import sites"),
    ("jaxsae.sae.model", "def f():\n  import jaxsae.train.loop"),
    ("jaxsae.sae.model", "from jaxsae import evals"),
    ("jaxsae.sae.model", "from jaxsae import load_lm"),
    ("jaxsae.sae.model", "import jaxsae"),
    ("jaxsae.overrides", "from jaxsae.mesh import make"),
    ("jaxsae.sae.model", "import flax.linen as nn"),
    ("jaxsae.sae.model", "from flax import linen"),
    ("jaxsae.sae.model", "from flax.linen import Module"),
    ("jaxsae.evals.suite", "import optax"),
    ("jaxsae.evals.downstream.suite", "from sklearn import linear_model"),
    ("jaxsae.lm.forward", "import orbax.checkpoint as ocp"),
    ("jaxsae.train.loop", "if True:\n  from grain import python"),
    ("jaxsae.cli", "import experiments.quickstart"),
    ("experiments.quickstart", "from experiments import sweep"),
    ("experiments.quickstart", "from experiments.comparison import features"),
    ("experiments.comparison.synthetic", "from experiments import quickstart"),
    ("experiments.comparison.synthetic", "import experiments.comparisons.b"),
    ("experiments.quickstart", "from jaxsae import cli"),
    ("launch.command", "import requests"),
    ("launch.command", "def f():\n  import numpy"),
    ("launch.command", "from jaxsae import errors"),
    ("launch.command", "import jaxsae"),
    ("experiments.quickstart", "from launch import command"),
    ("jaxsae.cli", "from launch import command"),
  ],
)
def test_the_checker_flags(name, source):
  assert list(violations(name, source))


@pytest.mark.parametrize(
  "name, source",
  [
    (
      "jaxsae.sae.model",
      "from jaxsae.sae import loss\nfrom flax import struct",
    ),
    ("jaxsae.lm.gemma", "from flax import linen as nn"),
    ("jaxsae.mesh", "from jaxsae.errors import UserError"),
    ("jaxsae.train.loop", "from jaxsae import data, mesh\nimport optax"),
    ("experiments.quickstart", "import jaxsae\nfrom jaxsae import load_lm"),
    (
      "experiments.comparison.synthetic",
      "from experiments.comparison import a",
    ),
    ("jaxsae", "from jaxsae.train.loop import train"),
    (
      "launch.command",
      "import subprocess\nfrom launch.errors import CommandFailed",
    ),
  ],
)
def test_the_checker_lets_pass(name, source):
  assert list(violations(name, source)) == []


def test_the_checker_finds_a_cycle():
  modules = {
    "jaxsae.sae.a": "from jaxsae.sae import b",
    "jaxsae.sae.b": "def f():\n  from jaxsae.sae.a import thing",
  }
  assert set(cycles(modules)) == modules.keys()
  assert cycles({**modules, "jaxsae.sae.b": ""}) is None


@pytest.mark.parametrize("package", ["jaxsae.lm", "jaxsae.sae"])
def test_a_model_alone_loads_jax_flax_and_numpy_only(package):
  # And fsspec, which is small and told how to reach gs://.
  assert added_by(package) <= {"fsspec"}


def test_the_check_of_loaded_packages_detects_others():
  assert "jinja2" in added_by("jinja2")


def added_by(package):
  """The third parties that `package` loads beyond jax, flax and numpy."""
  bare = loaded_by("import jax, flax, numpy")
  return loaded_by(f"import jax, flax, numpy, {package}") - bare - {"jaxsae"}


@functools.cache
def loaded_by(code):
  code += "; import sys; print(*{m.split('.')[0] for m in sys.modules})"
  done = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    check=True,
    cwd=ROOT,
  )
  installed = importlib.metadata.packages_distributions()
  return set(done.stdout.split()) & installed.keys()


def test_launch_starts_without_anything_installed():
  code = "import launch.__main__, sys; sys.exit(launch.__main__.main(['list']))"
  done = subprocess.run(
    [sys.executable, "-S", "-c", code],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env={"PATH": "/nowhere"},
  )
  assert done.returncode == 2 and "gcloud is not on PATH" in done.stderr


def test_only_one_file_of_launch_starts_programs():
  """The scripts that run on workers are separate programs."""
  starters = [
    name
    for name, source in sources().items()
    if is_in(name, "launch") and "subprocess" in imports(source)
  ]
  on_workers = ["launch.host.host", "launch.host.prepare"]
  assert starters == ["launch.command", *on_workers]
  told = "\n".join(x for n, x in sources().items() if is_in(n, "launch"))
  assert "shell=True" not in told and "os.system" not in told
