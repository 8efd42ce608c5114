"""Every function that other files use has type hints; pyright checks them."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxsae"
PUBLIC = ("__init__", "__call__")  # used from outside, despite their underscore


def unhinted(source):
  """Names of the public functions and methods that lack a type hint."""
  tree = ast.parse(source)
  classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
  methods = [
    node for cls in classes if not cls.name.startswith("_") for node in cls.body
  ]
  return [
    node.name
    for node in (*tree.body, *methods)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    and (node.name in PUBLIC or not node.name.startswith("_"))
    and not is_hinted(node)
  ]


def is_hinted(function):
  given = function.args
  arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
  arguments += filter(None, (given.vararg, given.kwarg))
  returns = function.returns is not None or function.name == "__init__"
  return returns and all(
    x.annotation or x.arg in ("self", "cls") or x.arg.startswith("_")
    for x in arguments
  )


@pytest.mark.parametrize(
  "source",
  [
    "def f(x) -> int: ...",
    "def f(x: int): ...",
    "def f(*, x) -> int: ...",
    "def f(**x) -> int: ...",
    "class C:\n  def f(self): ...",
    "class C:\n  def __init__(self, x): ...",
  ],
)
def test_a_missing_hint_is_found(source):
  assert len(unhinted(source)) == 1


def test_every_public_function_is_hinted():
  found = {
    f"{path.relative_to(PACKAGE)}: {name}"
    for path in PACKAGE.rglob("*.py")
    for name in unhinted(path.read_text(encoding="utf-8"))
  }
  assert not found
