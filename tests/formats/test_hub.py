"""Autoencoders load by their names on the Hugging Face Hub."""

import os
import subprocess
import sys

import numpy as np
import pytest
from huggingface_hub import constants

from jaxsae import formats
from jaxsae.errors import UserError
from jaxsae.formats import gemma_scope, hub, load_sae, load_saes
from jaxsae.origin import origin_of
from jaxsae.sae import JumpRelu
from jaxsae.sae.stack import init, member
from tests import hub as stand_in

REPO = "google/gemma-scope-2b-pt-res"
FOLDERS = [
  "layer_20/width_16/average_l0_7",
  "layer_20/width_16/average_l0_71",
  "layer_20/width_16/average_l0_71/older",
]


@pytest.fixture(scope="module")
def server():
  with stand_in.serving() as running:
    yield running


@pytest.fixture
def saes():
  made = init(JumpRelu(threshold=0.1), [0, 1, 2], 4, 4, 16)
  return {folder: member(made, i) for i, folder in enumerate(FOLDERS)}


@pytest.fixture
def served(server, saes, tmp_path, monkeypatch):
  """The stand-in with a small Gemma Scope, and an empty cache."""
  files = {"README.md": b"# A release", "other/weights.bin": b"much"}
  for folder, sae in saes.items():
    gemma_scope.write(sae, tmp_path / "made" / folder / "params.npz")
    made = tmp_path / "made" / folder / "params.npz"
    files[f"{folder}/params.npz"] = made.read_bytes()
  server.repos, server.errors = {REPO: files}, {}
  server.asked.clear()
  files_at = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
  monkeypatch.setattr(constants, "ENDPOINT", server.url)
  monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files_at)
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
  monkeypatch.chdir(tmp_path)
  return server


def go_offline(monkeypatch):
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_only_the_folder_that_is_named_is_downloaded(served, saes):
  sae = load_sae(f"{REPO}/{FOLDERS[1]}")
  np.testing.assert_array_equal(sae.w_enc, saes[FOLDERS[1]].w_enc)
  assert served.downloaded() == [f"{FOLDERS[1]}/params.npz"]
  origin = origin_of(sae)
  assert (origin.taps, origin.model) == ("resid.20", "gemma2-2b-pt")


def test_a_file_may_be_named_and_a_revision(served, saes):
  name = f"{REPO}@{stand_in.COMMIT}/{FOLDERS[0]}/params.npz"
  np.testing.assert_array_equal(load_sae(name).b_dec, saes[FOLDERS[0]].b_dec)


def test_all_below_a_folder_load_and_convert(served, tmp_path):
  found = load_saes(f"{REPO}/layer_20")
  assert set(found) == {f.removeprefix("layer_20/") for f in FOLDERS}
  assert "other/weights.bin" not in served.downloaded()
  new = formats.convert([f"{REPO}/{FOLDERS[0]}"], "sae_lens", tmp_path / "out")
  assert len(list(new)) == 1


def test_a_path_that_exists_wins(served, saes, tmp_path):
  gemma_scope.write(saes[FOLDERS[2]], tmp_path / REPO / "params.npz")
  np.testing.assert_array_equal(load_sae(REPO).w_enc, saes[FOLDERS[2]].w_enc)
  assert served.asked == []


def test_the_cache_is_used_offline(served, saes, monkeypatch):
  load_sae(f"{REPO}/{FOLDERS[1]}")
  go_offline(monkeypatch)
  served.asked.clear()
  again = load_sae(f"{REPO}/{FOLDERS[1]}")
  np.testing.assert_array_equal(again.w_dec, saes[FOLDERS[1]].w_dec)
  with pytest.raises(UserError, match=f"hf download {REPO} --include 'layer"):
    load_sae(f"{REPO}/{FOLDERS[0]}")
  assert served.asked == []


def test_the_cache_is_used_when_nothing_answers(served, saes, monkeypatch):
  load_sae(f"{REPO}/{FOLDERS[1]}")
  monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
  again = load_sae(f"{REPO}/{FOLDERS[1]}")
  np.testing.assert_array_equal(again.w_dec, saes[FOLDERS[1]].w_dec)
  with pytest.raises(UserError, match=r"`hf download org/new`"):
    load_sae("org/new")


@pytest.mark.parametrize(
  ("name", "error", "says"),
  [
    ("org/nothing", None, "neither a folder here nor a repository"),
    (REPO, (403, "GatedRepo"), "ask for access"),
    (REPO, (401, "GatedRepo"), "ask for access"),
    (REPO, (403, None), "ask for access"),
    (f"{REPO}@v9", None, "no such revision"),
    (f"{REPO}/layer_99", None, "no such files"),
  ],
)
def test_what_cannot_be_had_is_told_in_one_sentence(served, name, error, says):
  if error:
    served.errors = {REPO: error}
  folder = "" if "layer" in name or "@" in name else f"/{FOLDERS[0]}"
  with pytest.raises(UserError, match=says) as refusal:
    load_sae(name + folder)
  assert "\n" not in str(refusal.value)


def test_a_repository_without_autoencoders_at_its_root_is_not_downloaded(
  served,
):
  with pytest.raises(UserError, match="not an autoencoder"):
    load_sae(REPO)
  assert served.downloaded() == ["README.md"]


@pytest.mark.parametrize(
  "name",
  [
    "org/../repo",
    "org/repo/../../etc",
    "/org/repo",
    "org//repo",
    "org/repo/*",
    "org/repo/[a]",
    "org/re po",
    "org/repo/.cache",
    "org/repo@../x",
    "org/repo@",
    "org/a--b",
    "org/x.git",
    "-org/repo",
    "org/repo\n",
    "gs://org/repo",
    "~/org/repo",
    "repo",
    f"org/{'x' * 99}",
  ],
)
def test_what_is_no_name_is_asked_of_nobody(served, name):
  assert hub.HubName.of(name) is None


def test_a_bad_name_is_a_path_that_does_not_exist(served):
  with pytest.raises(UserError, match="does not exist"):
    load_sae("org/repo/../../etc")
  assert served.asked == []


def test_the_package_is_optional(served, monkeypatch):
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  with pytest.raises(UserError, match=r"pip install .jaxsae\[huggingface\]"):
    load_sae(REPO)


def test_the_usual_variables_of_the_hub_are_followed(served, tmp_path):
  cache = tmp_path / "home"
  code = f"import jaxsae; print(jaxsae.load_sae({REPO + '/' + FOLDERS[0]!r}))"
  variables = {"HF_ENDPOINT": served.url, "HF_HOME": str(cache)}
  done = subprocess.run(
    [sys.executable, "-c", code],
    env=os.environ | variables,
    capture_output=True,
    text=True,
    check=True,
  )
  assert "16" in done.stdout
  assert list(cache.rglob("params.npz"))
