"""A tree of parameters, built leaf by leaf."""

from jaxsae.lm.sharding import Path


def put(tree: dict, path: Path, leaf) -> None:
  """Puts a leaf where its path says, making what is on the way."""
  for key in path[:-1]:
    tree = tree.setdefault(key, {})
  tree[path[-1]] = leaf
