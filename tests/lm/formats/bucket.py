"""Loads models from a bucket; test_bucket.py runs this as a process.

`bucket.py FOLDER`: what is in the folder is put into the bucket, then each
folder in it loads from here and from there. Prints JSON: name → whether they
are the same, and what is said about a name that is not there.
"""

import json
import pathlib
import sys

import jax
from etils import epath

from jaxsae.errors import UserError
from jaxsae.lm import GemmaConfig, load_lm

BUCKET = epath.Path("gs://bucket")


def main(folder: pathlib.Path) -> None:
  for file in folder.rglob("*"):
    if file.is_file():
      there = BUCKET / str(file.relative_to(folder))
      there.write_bytes(file.read_bytes())
  config = GemmaConfig(**json.loads((folder / "sizes.json").read_text()))
  names = [x.name for x in folder.iterdir() if x.is_dir()]
  found = {name: is_same(folder, name, config) for name in names}
  try:
    load_lm(BUCKET / "nothing")
  except UserError as error:
    found["nothing"] = str(error)
  print(json.dumps(found))


def is_same(folder, name, config) -> bool:
  here = load_lm(folder / name, config=config)
  there = load_lm(BUCKET / name, config=config)
  equal = lambda x, y: bool((x == y).all())
  return jax.tree.all(jax.tree.map(equal, here.params, there.params))


main(pathlib.Path(sys.argv[1]))
