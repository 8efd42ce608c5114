"""Autoencoders are converted from every format to every other, and back."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsae
from jaxsae import formats
from jaxsae.errors import UserError
from jaxsae.formats import Published, convert
from jaxsae.lm import Site, Taps
from tests.formats.test_gemma_scope_2 import arrays, record

pytestmark = pytest.mark.slow

WRITTEN = ("gemma_scope", "gemma_scope_2", "sae_lens")


@pytest.fixture
def suite(tmp_path):
  """A folder of two autoencoders in Gemma Scope's format."""
  records = [record(Site("resid", layer)) for layer in (3, 4)]
  formats.write_release("gemma_scope", records, tmp_path / "suite")
  return tmp_path / "suite"


def all_arrays(folder):
  return jax.tree.leaves(list(jaxsae.load_saes(folder).values()))


@pytest.mark.parametrize("first", WRITTEN)
@pytest.mark.parametrize("second", WRITTEN)
def test_a_suite_goes_there_and_back_bit_for_bit(
  suite, tmp_path, first, second
):
  files = [*convert([suite], first, tmp_path / "1")]
  assert len(files) == 2
  list(convert([tmp_path / "1"], second, tmp_path / "2"))
  list(convert([tmp_path / "2"], "gemma_scope", tmp_path / "3"))
  assert sorted(jaxsae.load_saes(tmp_path / "3")) == sorted(
    jaxsae.load_saes(suite)
  )
  found, expected = all_arrays(tmp_path / "3"), all_arrays(suite)
  assert len(found) == 10
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_array_equal(a, b)
  (card, _) = sorted((tmp_path / "3").rglob("card.json"))
  assert json.loads(card.read_text())["model"] == "gemma3-1b-pt"


def test_a_transcoder_before_the_gain_stays_one(tmp_path):
  """SAELens has a hook there, and Gemma Scope 2 has none."""
  made = {name: jnp.asarray(x) for name, x in arrays().items()}
  before = Published(
    jaxsae.Sae(**made),
    Taps.transcoder(2),
    metrics={"l0": 9.0},
    before_gain=True,
  )
  formats.write_release("sae_lens", [before], tmp_path / "1")
  (config,) = (tmp_path / "1").rglob("cfg.json")
  metadata = json.loads(config.read_text())["metadata"]
  assert metadata["hook_name"] == "blocks.2.ln2.hook_normalized"
  list(convert([tmp_path / "1"], "gemma_scope", tmp_path / "2"))
  (file,) = (tmp_path / "2").rglob("params.npz")
  np.testing.assert_array_equal(np.load(file)["W_enc"], made["w_enc"])
  with pytest.raises(UserError, match="before the gain"):
    list(convert([tmp_path / "1"], "gemma_scope_2", tmp_path / "3"))
  assert not (tmp_path / "3").exists()


@pytest.fixture
def bare(tmp_path):
  """A file that says neither its site nor its L0."""
  formats.gemma_scope.write(
    record(Site("resid", 3)).sae, tmp_path / "bare" / "params.npz"
  )
  return tmp_path / "bare"


def test_what_a_file_does_not_say_is_given(bare, tmp_path):
  with pytest.raises(UserError, match="site and L0"):
    list(convert([bare], "sae_lens", tmp_path / "out"))
  list(convert([bare], "sae_lens", tmp_path / "out", "mlp.7", 30.2))
  assert list(jaxsae.load_saes(tmp_path / "out")) == ["mlp.7/width_20/l0_30"]


@pytest.mark.parametrize(
  "l0", ["NaN", "Infinity", "1" + "0" * 400, '"9"', "true"]
)
def test_an_l0_that_is_no_number_is_none(tmp_path, l0):
  formats.write_release(
    "gemma_scope_2", [record(Site("resid", 3))], tmp_path / "suite"
  )
  for name in ("config.json", "card.json"):
    (file,) = (tmp_path / "suite").rglob(name)
    file.write_text(file.read_text().replace("51.4", l0))
  with pytest.raises(UserError, match="site and L0"):
    list(convert([tmp_path / "suite"], "sae_lens", tmp_path / "out"))
  list(convert([tmp_path / "suite"], "sae_lens", tmp_path / "out", l0=4))


def test_a_format_that_is_only_read_is_not_advised():
  done = run()
  assert f"--format={'|'.join(formats.written())}." in done.stderr
  assert set(formats.written()) == {*WRITTEN, "circuit_tracer"}


def test_another_site_than_the_file_says_is_refused(suite, tmp_path):
  with pytest.raises(UserError, match=r"resid\.3, not of mlp\.3"):
    list(convert([suite], "sae_lens", tmp_path / "out", "mlp.3"))
  assert not (tmp_path / "out").exists()


def run(*words):
  command = [sys.executable, "-m", "jaxsae.cli", "convert", *map(str, words)]
  return subprocess.run(command, capture_output=True, text=True)


def test_the_command_converts_and_names_its_files(suite, bare, tmp_path):
  out = tmp_path / "out"
  done = run(suite, bare, out, "--format", "sae_lens", "--l0=5")
  assert done.returncode == 2 and "site" in done.stderr
  assert not out.exists()
  done = run(suite, out, "--format", "sae_lens")
  assert done.returncode == 0, done.stderr
  printed = done.stdout.split()
  assert len(printed) == 4 and all(
    (tmp_path / line).exists() for line in printed
  )


@pytest.mark.parametrize(
  ("words", "told"),
  [
    ((), "jaxsae convert IN OUT"),
    (("none", "out", "--format=sae_lens"), "none does not exist"),
    (("{suite}", "out"), "--format="),
    (("{suite}", "out", "--format=sae_lense"), "--format=sae_lense"),
    (("{suite}", "{suite}", "--format=sae_lens"), "exists"),
    (("{suite}", "out", "--fromat=sae_lens"), "--format"),
  ],
)
def test_mistakes_are_one_sentence(suite, words, told):
  done = run(*(word.format(suite=suite) for word in words))
  assert done.returncode == 2 and told in done.stderr
  assert done.stderr.count("\n") == 1
