"""Builds a tree of parameters leaf by leaf."""

from typing import Any

from jaxsae.lm.sharding import Path


def put(tree: dict, path: Path, leaf: Any) -> None:
  """Puts a leaf at its path, making the dicts on the way."""
  for key in path[:-1]:
    tree = tree.setdefault(key, {})
  tree[path[-1]] = leaf
