"""The README's notebook and commands work as printed."""

import pathlib
import re

import jax
import pytest

from jaxsae import formats
from jaxsae.formats import gemma_scope
from jaxsae.sae import JumpRelu
from jaxsae.sae import stack as stacks

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_it_is_short():
  assert README.count("\n") < 160


def test_it_names_the_formats_that_are_written_and_those_that_are_read():
  (line,) = re.findall(r"read and written: (.*); read: (.*) \|", README)
  written, read = (re.findall(r"`(\w+)`", part) for part in line)
  assert written == formats.written()
  assert {*written, *read} == formats.FORMATS.keys()


def test_every_file_it_names_exists():
  for path in re.findall(
    r"`((?:jaxsae|experiments|tests|docs)/[\w/.]*)`", README
  ):
    assert (ROOT / path).exists(), path
  for path in re.findall(r"\]\(([\w/.]+)\)", README):
    assert (ROOT / path).exists(), path


def test_the_notebook_runs(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  section = README.split("## In a notebook")[1].split("\n## ")[0]
  blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
  folder = re.search(r'load_sae\(\s*"(.*?)"', section)[1]
  sae = stacks.member(
    stacks.init(JumpRelu(threshold=0.2), [0], 128, 128, 256), 0
  )
  gemma_scope.write(sae, tmp_path / folder / "params.npz")
  names = {}
  assert len(blocks) == 1
  with jax.numpy_rank_promotion("allow"):  # as in anybody's notebook
    for block in blocks:
      exec(block, names)
  assert names["logits"].shape == (1, len(names["tokens"][0]), 4096)
  assert names["latents"].shape[-1] == 256
  assert (names["steered"] != names["logits"]).any()
  assert (names["spliced"] != names["logits"]).any()
  assert isinstance(names["text"], str)
  (of_one,) = names["figures"].values()
  assert of_one.l0 > 0


@pytest.mark.parametrize("target", re.findall(r"make (\w+)", README))
def test_its_make_targets_exist(target):
  assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
