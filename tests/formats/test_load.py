"""`load_sae` loads an autoencoder from a file or a folder."""

import json
import re
import shutil

import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.formats import gemma_scope, load_sae, write_all
from jaxsae.lm import (
  Clamp,
  Site,
  Splice,
  Steer,
  Taps,
  edit,
  generate,
  load_lm,
  splice,
)
from jaxsae.sae import JumpRelu
from jaxsae.sae.stack import init, member


@pytest.fixture
def sae():
  return member(init(JumpRelu(threshold=0.1), [0], 4, 4, 16), 0)


@pytest.mark.parametrize("ask", ["params.npz", "."])
def test_a_file_and_its_folder_are_the_same(sae, tmp_path, ask):
  gemma_scope.write(sae, tmp_path / "params.npz")
  for given in (tmp_path / ask, str(tmp_path / ask)):
    np.testing.assert_array_equal(load_sae(given).w_dec, sae.w_dec)


def test_a_file_may_have_another_name(sae, tmp_path):
  gemma_scope.write(sae, tmp_path / "mine.npz")
  assert load_sae(tmp_path / "mine.npz").width == 16


def test_the_error_about_a_missing_path_lists_what_loads(tmp_path):
  with pytest.raises(UserError, match=r"nowhere does not exist; give .*\.npz"):
    load_sae(tmp_path / "nowhere")


def test_the_error_about_an_empty_folder_lists_what_loads(sae, tmp_path):
  gemma_scope.write(sae, tmp_path / "deeper" / "params.npz")
  with pytest.raises(UserError, match=r"not an autoencoder; .*params\.npz"):
    load_sae(tmp_path)


def test_the_error_about_another_kind_of_file_lists_what_loads(tmp_path):
  (tmp_path / "sae.bin").write_bytes(b"PK")
  with pytest.raises(UserError, match=r"sae\.bin is not an autoencoder; give"):
    load_sae(tmp_path / "sae.bin")


# What is there, where no autoencoder is.


def test_the_error_about_a_folder_above_names_one_that_loads(sae, tmp_path):
  write_all("gemma_scope", [(Site("mlp", 0), sae, 3.0)] * 2, tmp_path / "out")
  for above in (tmp_path, tmp_path / "out", tmp_path / "out" / "mlp"):
    with pytest.raises(UserError, match="one of 2") as raised:
      load_sae(above)
    (named,) = re.findall(r"such as (\S+) ", str(raised.value))
    assert load_sae(named).width == 16


@pytest.fixture
def run_folder(tmp_path):
  """A folder that looks like a run's."""
  run = tmp_path / "run"
  (run / "checkpoints").mkdir(parents=True)
  (run / "config.json").write_text("{}")
  return run


def test_the_error_about_a_run_says_how_to_open_it(sae, run_folder):
  with pytest.raises(UserError, match="is a run") as raised:
    load_sae(run_folder)
  assert f"open_run('{run_folder}').saes" in str(raised.value)
  assert f"jaxsae export {run_folder} --out=DIR" in str(raised.value)
  write_all("gemma_scope", [(Site("mlp", 0), sae, 3.0)], run_folder / "export")
  with pytest.raises(UserError, match="is a run") as raised:
    load_sae(run_folder)
  (named,) = re.findall(r"such as (\S+) ", str(raised.value))
  assert load_sae(named).width == 16


# Where it belongs.


@pytest.fixture(scope="module")
def lm():
  return load_lm("gemma2-tiny")


@pytest.fixture
def exported(lm, tmp_path):
  """exported(place): the folder of an autoencoder of that place."""

  def write(place, d=128):
    made = member(init(JumpRelu(threshold=0.1), [0], d, d, 16), 0)
    out = tmp_path / f"out_{place}"
    (file,) = write_all("gemma_scope", [(place, made, 3.0)], out, lm)
    return (out / file).parent

  return write


TOKENS = [[5, 6, 7]]
WRONG = {
  "splice": lambda lm, sae: splice("resid.2", sae),
  "splice in a splice": lambda lm, sae: splice("resid.2", Splice(sae)),
  "edit": lambda lm, sae: edit(lm, TOKENS, {"resid.2": sae}),
  "clamp": lambda lm, sae: edit(lm, TOKENS, {"resid.2": Clamp(sae, 0, 1.0)}),
  "latents": lambda lm, sae: edit(
    lm, TOKENS, {"mlp.3": Splice(sae, True, Steer(np.eye(16)[0], 1.0))}
  ),
  "generate": lambda lm, sae: generate(
    lm, "def", edits={"attn.3": sae}, max_tokens=1
  ),
  "transcoder": lambda lm, sae: splice("transcoder.3", sae),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("moved", [False, True], ids=["by path", "by card"])
def test_an_autoencoder_is_refused_at_another_site(
  lm, exported, tmp_path, wrong, moved
):
  folder = exported(Site("resid", 3))
  if moved:
    folder = shutil.copytree(folder, tmp_path / "elsewhere")
  else:
    (folder / "card.json").unlink()
  for path in (folder, folder / "params.npz"):
    sae = load_sae(path)
    with pytest.raises(UserError, match=r"resid\.3.*sae\.replace\(\)"):
      wrong(lm, sae)
  assert edit(lm, TOKENS, splice("resid.3", sae)).shape == (1, 3, 4096)


def test_a_copy_may_be_put_anywhere_as_the_error_says(lm, exported):
  sae = load_sae(exported(Site("resid", 3)))
  edit(lm, TOKENS, splice("resid.2", sae.replace()))


def test_an_autoencoder_without_a_site_goes_anywhere(lm, sae, tmp_path):
  made = member(init(JumpRelu(threshold=0.1), [0], 128, 128, 16), 0)
  gemma_scope.write(made, tmp_path / "params.npz")
  edit(lm, TOKENS, splice("resid.2", load_sae(tmp_path)))


@pytest.mark.parametrize("at", ["resid.2", "resid.2+resid.3", "transcoder.2"])
def test_an_autoencoder_of_another_width_is_refused(lm, sae, at):
  with pytest.raises(UserError, match=r"\[4, 16\].*(128|256) numbers"):
    edit(lm, TOKENS, splice(at, sae))


def test_a_stack_is_no_autoencoder(lm):
  stack = init(JumpRelu(threshold=0.1), [0, 1], 128, 128, 16)
  with pytest.raises(UserError, match=r"\[2, 128, 16\].*one autoencoder"):
    edit(lm, TOKENS, splice("resid.2", stack))


def test_a_published_transcoder_is_converted_first(lm, exported):
  taps = Taps.transcoder(3)
  sae = load_sae(exported(taps))
  with pytest.raises(UserError, match=r"gain.*from_published\(sae, 'trans"):
    splice(taps, sae)
  ours = gemma_scope.from_published(sae, "transcoder.3", lm)
  edit(lm, TOKENS, splice(taps, ours))
  with pytest.raises(UserError, match=r"transcoder\.3"):
    splice("transcoder.2", ours)


def test_an_autoencoder_of_a_model_of_other_sizes_is_refused(lm, exported):
  folder = exported(Site("resid", 3))
  file = folder / "card.json"
  card = json.loads(file.read_text())
  assert card["model"] == "gemma2-tiny"
  file.write_text(json.dumps(card | {"model": "gs://bucket/gemma2-2b-pt"}))
  with pytest.raises(UserError, match=r"gemma2-2b-pt.*gemma2-tiny"):
    edit(lm, TOKENS, splice("resid.3", load_sae(folder)))


def test_another_model_of_the_same_sizes_is_warned_of(lm, exported):
  sae = load_sae(exported(Site("resid", 3)))
  tuned = lm.replace(name="/somewhere/gemma2-tiny-it")
  with pytest.warns(UserWarning, match=r"gemma2-tiny.*gemma2-tiny-it"):
    edit(tuned, TOKENS, splice("resid.3", sae))


@pytest.mark.parametrize(
  "card",
  [
    "{",
    '{"taps": 5}',
    '{"taps": "x"}',
    "[" * 100_000,
    " " * 2_000_000,
    "\x00",
    '{"taps": "resid.3", "model": 5}',
  ],
  ids=["cut", "number", "text", "deep", "large", "zero", "model"],
)
def test_a_damaged_card_is_named(exported, card):
  folder = exported(Site("resid", 3))
  (folder / "card.json").write_text(card)
  with pytest.raises(UserError, match=r"card\.json is damaged"):
    load_sae(folder)
  (folder / "card.json").unlink()
  assert load_sae(folder).width == 16


@pytest.mark.parametrize(
  "other", [{"width": 17}, {"d": 3}, {"taps": "resid.4"}], ids=str
)
def test_the_card_of_another_autoencoder_is_refused(exported, other):
  file = exported(Site("resid", 3)) / "card.json"
  file.write_text(json.dumps(json.loads(file.read_text()) | other))
  with pytest.raises(UserError, match=rf"card\.json.*{next(iter(other))}"):
    load_sae(file.parent)


def test_the_card_of_another_program_is_left_alone(exported):
  folder = exported(Site("resid", 3))
  (folder / "card.json").write_text('{"title": "mine"}')
  assert load_sae(folder).width == 16
