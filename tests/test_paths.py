"""Every path that a person gives may begin with `~`, by one rule."""

import pathlib
import re
import shutil

import pytest

import jaxsae
from jaxsae import data, runs
from jaxsae.errors import UserError
from jaxsae.files import expanded, given_path
from jaxsae.lm import load_lm, save_lm
from jaxsae.plan import prices
from jaxsae.runs import check
from jaxsae.train.process import workdir
from launch import command_line


@pytest.fixture
def home(tmp_path, monkeypatch):
  """An empty home folder, with another working folder."""
  (tmp_path / "here").mkdir()
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  monkeypatch.chdir(tmp_path / "here")
  yield tmp_path / "home"
  assert not list((tmp_path / "here").iterdir())  # no folder called `~`


def test_only_a_leading_tilde_is_replaced(home):
  assert expanded("~") == str(home)
  assert expanded(pathlib.Path("~/x")) == f"{home}/x"
  for path in ("a/~/x", "./~/x", "/x~", "gs://b/~/x", ""):
    assert expanded(path) == path
  assert str(given_path("gs://b/~/x")) == "gs://b/~/x"


def test_a_home_that_nobody_has_is_an_error(home):
  with pytest.raises(UserError, match=r"~nobody-here/x has no meaning"):
    expanded("~nobody-here/x")


@pytest.mark.parametrize("path", [None, 3, b"x", ["x"], True])
def test_what_is_not_a_path_is_an_error(path):
  lm = load_lm("gemma2-tiny")
  for use in (
    expanded,
    jaxsae.load_sae,
    lambda path: save_lm(lm, path),
    lambda path: load_lm("gemma2-tiny", tokenizer=path or 3),
  ):
    with pytest.raises(UserError, match="is not a path; give text"):
      use(path)


def test_a_run_may_be_in_the_home_folder(home, config, replace):
  shutil.copytree(config.data.source, home / "texts")
  shutil.copytree(config.lm, home / "lm")
  given = replace(
    config,
    workdir="~/runs/x",
    lm="~/lm",
    data__source="~/texts",
    data__cache="~/cache",
  )
  assert check.problems([given]) == []
  lm = load_lm(given.lm)
  corpus = data.open_corpus(given.data, lm.tokenizer)
  assert len(list((home / "cache").iterdir())) == 1
  workdir.claim(given, corpus.policy)
  assert (home / "runs" / "x" / "config.json").exists()
  assert workdir.read_config(given_path("~/runs/x")) == given
  with pytest.raises(UserError, match="has no checkpoint"):
    runs.open_run("~/runs/x")
  save_lm(lm, "~/copy")
  assert (home / "copy" / "config.json").exists()


def test_other_files_may_be_in_the_home_folder(home):
  home.mkdir()
  shutil.copy(prices.SHIPPED, home / "p.json")
  assert prices.read("~/p.json") == prices.read()
  with pytest.raises(UserError, match="does not exist"):
    jaxsae.load_sae("~/none")
  (home / "sae.npz").write_bytes(b"not one")
  with pytest.raises(UserError, match=r"not an \.npz file"):
    jaxsae.load_sae("~/sae.npz")


def test_the_launcher_has_the_same_rule(home):
  for verb, flag in (("setup", "state"), ("setup", "script")):
    found = command_line.parse([verb, "n", f"--{flag}=~/x"])
    assert getattr(found, flag) == f"{home}/x"
  create = ["create", "n", "--topology=v5e:2x4", "--zone=us-west4-a"]
  assert command_line.parse([*create, "--plan=~/x"]).plan == f"{home}/x"


def test_the_rule_is_in_one_place():
  root = pathlib.Path(jaxsae.__file__).parent
  found = {
    str(file.relative_to(root))
    for file in root.rglob("*.py")
    if re.search(
      r"expanduser|epath\.Path\((config\.|run\)|out\)|workdir|name\))",
      file.read_text(),
    )
  }
  assert found == {"files.py"}
