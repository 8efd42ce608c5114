"""A new format needs one file and one registration, as this one shows."""

import json
import os
import pathlib

import numpy as np
import pytest

from jaxsae import formats
from jaxsae.errors import UserError
from jaxsae.files import whole_file
from jaxsae.formats.arrays import check_shapes, check_values
from jaxsae.lm import Site, Taps
from jaxsae.sae import JumpRelu, Sae
from jaxsae.sae.stack import init, member

FIELDS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")


class Toy:
  """One `toy.json`: arrays as lists, and everything that is known of them."""

  name = "toy"
  accepts = "a folder with toy.json"

  def matches(self, path):
    return os.path.isfile(os.path.join(path, "toy.json"))

  def read(self, path):
    file = pathlib.Path(path, "toy.json")
    try:
      content = json.loads(file.read_bytes())
      arrays = {n: np.asarray(content[n], np.float32) for n in FIELDS}
      taps = Taps.parse(content["taps"])
    except (ValueError, KeyError, TypeError) as error:
      raise UserError(f"{file} is damaged ({error}); get it again.") from error
    check_shapes({name: x.shape for name, x in arrays.items()}, file)
    check_values(arrays, file)
    sae = Sae(**{name.lower(): x for name, x in arrays.items()})
    rest = ("model", "data", "recipe", "metrics", "licence")
    return formats.Published(sae, taps, **{n: content[n] for n in rest})

  def check(self, published):
    if published.sae.k is not None:
      raise UserError("A toy file has no place for k.")

  def write(self, published, path):
    content = {n: np.asarray(getattr(published.sae, n.lower())) for n in FIELDS}
    content = {name: array.tolist() for name, array in content.items()}
    content |= {
      "taps": str(published.taps),
      "model": published.model,
      "data": published.data,
      "recipe": published.recipe,
      "metrics": published.metrics,
      "licence": published.licence,
    }
    with whole_file(pathlib.Path(path, "toy.json")) as partial:
      partial.write_text(json.dumps(content))

  def place(self, published):
    return f"{published.taps}/{published.sae.width}"


@pytest.fixture(autouse=True)
def toy(monkeypatch):
  monkeypatch.setitem(formats.FORMATS, Toy.name, Toy())


@pytest.fixture
def sae():
  return member(init(JumpRelu(threshold=0.1), [0], 4, 4, 16), 0)


@pytest.fixture
def folder(sae, tmp_path):
  """A folder in the format."""
  (file,) = formats.write_all(
    "toy", [(Site("mlp", 2), sae, 5.5)], tmp_path / "out"
  )
  assert file == "mlp.2/16/toy.json"
  return (tmp_path / "out" / file).parent


def test_load_sae_finds_it(sae, folder):
  np.testing.assert_array_equal(formats.load_sae(folder).w_enc, sae.w_enc)


def test_a_record_is_read_back_as_it_was_written(sae, tmp_path):
  record = formats.Published(
    sae,
    Taps.of(Site("attn", 1)),
    model="gemma2-tiny",
    data={"source": "python-stdlib"},
    recipe={"tokens": 8},
    metrics={"l0": 5.5, "fvu": 0.25},
    licence="mit",
  )
  files = formats.write_release("toy", [record, record], tmp_path / "out")
  assert files == ["attn.1/16/toy.json", "attn.1/16_2/toy.json"]
  folder = (tmp_path / "out" / files[1]).parent
  back = formats.format_of(folder).read(folder)
  for name in ("taps", "model", "data", "recipe", "metrics", "licence"):
    assert getattr(back, name) == getattr(record, name)


def test_unknown_fields_stay_unknown(folder):
  back = formats.format_of(folder).read(folder)
  assert back.metrics == {"l0": 5.5}
  assert (back.model, back.data, back.recipe, back.licence) == (None,) * 4


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_a_damaged_file_is_refused(folder, cut):
  file = folder / "toy.json"
  file.write_bytes(file.read_bytes()[:cut])
  with pytest.raises(UserError, match=r"toy\.json is damaged") as raised:
    formats.load_sae(folder)
  assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", FIELDS)
def test_a_wrong_array_is_refused(folder, name):
  file = folder / "toy.json"
  file.write_text(json.dumps(json.loads(file.read_text()) | {name: [[0.0]]}))
  with pytest.raises(UserError, match=r"toy\.json"):
    formats.load_sae(folder)


def test_the_error_about_a_folder_of_two_formats_names_both(sae, folder):
  formats.gemma_scope.write(sae, folder / "params.npz")
  with pytest.raises(UserError, match=r"gemma_scope.*toy") as raised:
    formats.load_sae(folder)
  assert str(folder) in str(raised.value)
  assert formats.load_sae(folder / "params.npz").width == 16


def test_every_format_is_listed_where_none_matches(tmp_path):
  with pytest.raises(UserError, match=r"params\.npz.*toy\.json"):
    formats.load_sae(tmp_path)


def test_every_format_is_listed_where_the_name_is_wrong(sae, tmp_path):
  with pytest.raises(UserError, match=r"gemma_scope.*toy"):
    formats.write_all("toi", [], tmp_path / "out")


def test_a_failure_in_the_middle_leaves_nothing(sae, tmp_path):
  known = formats.Published(sae, Taps.of(Site("mlp", 2)))  # no L0, so no folder
  with pytest.raises(UserError, match="L0"):
    formats.write_release("gemma_scope", [known], tmp_path / "out")
  assert not list(tmp_path.iterdir())
