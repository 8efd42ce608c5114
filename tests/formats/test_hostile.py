"""Files that lie or are broken: one sentence, or an autoencoder that is whole.

Every format of `FORMATS` has a small valid sample here, which is damaged in all
the ways that its files allow.
"""

import copy
import itertools
import json
import os
import pathlib
import pickle
import re
import shutil
import zipfile

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from jaxsae import load_sae
from jaxsae.errors import UserError
from jaxsae.formats import FORMATS, Published, format_of
from jaxsae.formats.load import autoencoders_at
from jaxsae.lm import Site, Taps
from jaxsae.sae import Sae
from tests.libraries import need

torch = need("torch")

pytestmark = pytest.mark.slow

D, F, K = 4, 8, 2


def array(*shape):
  draw = np.random.default_rng(sum(shape) + len(shape))
  return draw.normal(size=shape).astype(np.float32)


def written(name, taps):
  """Writes a sample in a format that is written."""
  sae = Sae(
    array(D, F), array(F), array(F, D), array(D), np.abs(array(F)), None
  )
  record = Published(
    sae, taps, model="gemma2-2b-pt", metrics={"l0": 2.0}, before_gain=True
  )
  return lambda folder: FORMATS[name].write(record, folder)


def saved(config_file, config, weights_file, weights):
  """Writes a configuration and weights."""

  def write(folder):
    (folder / weights_file).parent.mkdir(exist_ok=True)
    (folder / config_file).write_text(json.dumps(config))  # which is YAML too
    if weights_file.endswith(".pt"):
      tensors = {name: torch.tensor(x) for name, x in weights.items()}
      torch.save(tensors, folder / weights_file)
    else:
      save_file(weights, folder / weights_file)

  return write


LINEAR = {
  "encoder.weight": array(F, D),
  "encoder.bias": array(F),
  "decoder.weight": array(D, F),
}
PLAIN = {
  "W_enc": array(F, D),
  "b_enc": array(F),
  "W_dec": array(D, F),
  "b_dec": array(D),
}


def clt_sample(folder):
  encoder = {"W_enc_0": array(F, D), "b_enc_0": array(F), "b_dec_0": array(D)}
  config = {
    "model_kind": "cross_layer_transcoder",
    "model_name": "google/gemma-2-2b",
    "feature_input_hook": "mlp.hook_in",
    "feature_output_hook": "hook_mlp_out",
  }
  saved("config.yaml", config, "W_enc_0.safetensors", encoder)(folder)
  decoder = {"W_dec_0": array(F, 3, D)}
  save_file(decoder, folder / "W_dec_0.safetensors")


def qwen_sample(folder):
  tensors = {name: torch.tensor(x) for name, x in PLAIN.items()}
  torch.save(tensors, folder / "layer3.sae.pt")


# Format → what writes a sample into a folder named L0_2, and its path there.
SAMPLES = {
  "gemma_scope": (written("gemma_scope", Taps.of(Site("resid", 3))), "."),
  "gemma_scope_2": (written("gemma_scope_2", Taps.of(Site("resid", 3))), "."),
  "sae_lens": (written("sae_lens", Taps.of(Site("resid", 3))), "."),
  "circuit_tracer": (
    written("circuit_tracer", Taps.transcoder(0)),
    "layer_0.safetensors",
  ),
  "sparsify": (
    saved(
      "cfg.json",
      {"activation": "topk", "k": K, "transcode": False},
      "sae.safetensors",
      {
        "encoder.weight": array(F, D),
        "encoder.bias": array(F),
        "W_dec": array(F, D),
        "b_dec": array(D),
      },
    ),
    ".",
  ),
  "dictionary_learning": (
    saved(
      "config.json",
      {"trainer": {"dict_class": "AutoEncoder", "layer": 3}},
      "ae.pt",
      LINEAR | {"bias": array(D)},
    ),
    ".",
  ),
  "llama_scope": (
    saved(
      "hyperparams.json",
      {
        "act_fn": "jumprelu",
        "jump_relu_threshold": 0.5,
        "top_k": K,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": 5.0, "out": 3.0},
        "hook_point_in": "blocks.3.hook_resid_post",
      },
      "checkpoints/final.safetensors",
      LINEAR | {"decoder.bias": array(D)},
    ),
    ".",
  ),
  "qwen_scope": (qwen_sample, "layer3.sae.pt"),
  "circuit_tracer_clt": (clt_sample, "W_enc_0.safetensors"),
}
every_format = pytest.mark.parametrize("name", FORMATS)


def sample(name, top):
  """Writes a sample below a new folder; returns the path that is read."""
  folder = pathlib.Path(top, "L0_2")
  folder.mkdir()
  write, path = SAMPLES[name]
  write(folder)
  return folder / path


def files_of(path):
  folder = path if path.is_dir() else path.parent
  return sorted(file for file in folder.rglob("*") if file.is_file())


def is_whole(sae):
  """Checks that all arrays belong to one autoencoder."""
  (d_in, width), (_, d) = sae.w_enc.shape, sae.w_dec.shape
  assert sae.w_dec.shape == (width, d) and min(d_in, width, d) > 0
  assert sae.b_enc.shape == sae.threshold.shape == (width,)
  assert sae.b_dec.shape == (d,)
  assert sae.w_skip is None or sae.w_skip.shape == (d_in, d)
  assert all(np.isfinite(x).all() for x in sae_arrays(sae))
  assert (np.asarray(sae.threshold) >= 0).all()
  assert sae.k is None or 1 <= sae.k <= width


def sae_arrays(sae):
  found = [sae.w_enc, sae.b_enc, sae.w_dec, sae.b_dec, sae.threshold]
  return found + ([] if sae.w_skip is None else [sae.w_skip])


def survives(path):
  """Loads what may be damaged; returns the sentence that refuses it."""
  try:
    sae = load_sae(path)
  except UserError as error:
    told = str(error)
    assert "\n" not in told and len(told) < 2000 and str(path.parent) in told
    return told
  is_whole(sae)
  # What is said beside the arrays goes into other files.
  json.dumps(format_of(path).read(path).metrics, allow_nan=False)
  return ""


def test_every_format_has_a_sample(tmp_path):
  assert SAMPLES.keys() == FORMATS.keys()


@every_format
def test_the_sample_is_valid_and_of_one_format(name, tmp_path):
  path = sample(name, tmp_path)
  assert survives(path) == "" and format_of(path).name == name
  assert autoencoders_at(tmp_path) == [path]


# Bytes and values.

some = hypothesis.settings(
  max_examples=20,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
HOSTILE = st.one_of(
  st.sampled_from(
    [None, True, False, 0, 1, -1, 2**31, 10**400, 1e308, 1e-320, "", "x"]
  ),
  st.sampled_from([[], {}, [[]], [None], {"": None}, "../../x", "\x00", "é"]),
  st.sampled_from(["topk", "relu", "gated", "standard", "blocks.9999.ln2"]),
  st.sampled_from([float("nan"), float("inf"), -float("inf"), -0.5]),
)


@every_format
@some
@hypothesis.given(data=st.data())
def test_damaged_bytes(name, data, tmp_path_factory):
  path = sample(name, tmp_path_factory.mktemp("x"))
  file = data.draw(st.sampled_from(files_of(path)))
  content = bytearray(file.read_bytes())
  for _ in range(data.draw(st.integers(0, 4))):
    where = data.draw(st.integers(0, len(content) - 1))
    content[where] = data.draw(st.integers(0, 255))
  end = data.draw(st.none() | st.integers(0, len(content)))
  file.write_bytes(content[:end] + data.draw(st.binary(max_size=9)))
  survives(path)


def places_in(value, place=()):
  """Yields the place of every value in a tree, the root last."""
  if isinstance(value, dict | list):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
      yield from places_in(inner, (*place, key))
  yield place


def replaced(tree, place, value):
  if not place:
    return value
  made = copy.deepcopy(tree)
  inner = made
  for key in place[:-1]:
    inner = inner[key]
  inner[place[-1]] = value
  return made


def header_of(file):
  """Returns the header of safetensors, and what comes after it."""
  content = file.read_bytes()
  end = 8 + int.from_bytes(content[:8], "little")
  return json.loads(content[8:end]), content[end:]


def write_header(file, header, rest):
  text = json.dumps(header).encode()
  file.write_bytes(len(text).to_bytes(8, "little") + text + rest)


def with_values(path):
  """The files whose values can be replaced."""
  suffixes = (".json", ".yaml", ".safetensors")
  return [file for file in files_of(path) if file.suffix in suffixes]


@pytest.mark.parametrize(
  "name", sorted(FORMATS.keys() - {"gemma_scope", "qwen_scope"})
)
@some
@hypothesis.given(data=st.data())
def test_other_values(name, data, tmp_path_factory):
  path = sample(name, tmp_path_factory.mktemp("x"))
  file = data.draw(st.sampled_from(with_values(path)))
  rest = b""
  if file.suffix == ".safetensors":
    tree, rest = header_of(file)
  else:
    tree = yaml.safe_load(file.read_text())
  place = data.draw(st.sampled_from(list(places_in(tree))))
  tree = replaced(tree, place, data.draw(HOSTILE))
  if file.suffix == ".safetensors":
    write_header(file, tree, rest)
  else:
    file.write_text(json.dumps(tree))
  survives(path)


# Arrays.


def arrays_of(file):
  if file.suffix == ".npz":
    return dict(np.load(file))
  if file.suffix == ".pt":
    found = torch.load(file, weights_only=True)
    return {name: x.numpy() for name, x in found.items()}
  return load_file(file)


def write_arrays(file, arrays):
  if file.suffix == ".npz":
    np.savez(file, **arrays)
  elif file.suffix == ".pt":
    torch.save({n: torch.tensor(x) for n, x in arrays.items()}, file)
  else:
    save_file(arrays, file)


WEIGHTS = (".npz", ".pt", ".safetensors")
WRONG = {
  "nan": lambda x: np.full_like(x, np.nan),
  "one infinity": lambda x: (
    np.where(np.arange(x.size) == 0, np.inf, x.flat)
    .astype(x.dtype)
    .reshape(x.shape)
  ),
  "huge": lambda x: np.full_like(x, 3e38),
  "wider type": lambda x: x.astype(np.float64) * 1e300,
  "whole numbers": lambda x: np.ones(x.shape, np.int64),
  "no axes": lambda x: np.float32(1) + 0 * x.sum(),
  "empty": lambda x: x[..., :0],
  "wider": lambda x: np.concatenate([x, x], -1),
  "longer": lambda x: np.concatenate([x, x]),
  "more axes": lambda x: x[None],
  "negative": lambda x: -np.abs(x) - 1,
}


# Where arrays fit together, they are no longer what they were, but whole.
MAY_PASS = ("huge", "wider type", "whole numbers", "negative")


@every_format
@pytest.mark.parametrize("change", WRONG)
def test_wrong_arrays(name, change, tmp_path):
  path = sample(name, tmp_path)
  for file in [file for file in files_of(path) if file.suffix in WEIGHTS]:
    arrays = arrays_of(file)
    for array_name, x in arrays.items():
      made = {array_name: np.ascontiguousarray(WRONG[change](x))}
      write_arrays(file, arrays | made)
      # A Gemma Scope file says no site, and could be a transcoder's.
      may_pass = change in MAY_PASS or (name, change) == (
        "gemma_scope",
        "longer",
      )
      assert survives(path) or may_pass, array_name
    write_arrays(file, arrays)


@every_format
def test_missing_and_other_arrays(name, tmp_path):
  path = sample(name, tmp_path)
  for file in [file for file in files_of(path) if file.suffix in WEIGHTS]:
    arrays = arrays_of(file)
    for array_name in arrays:
      write_arrays(file, {n: x for n, x in arrays.items() if n != array_name})
      assert survives(path) or "threshold" in array_name
    write_arrays(file, arrays | {"other": np.ones(3, np.float32)})
    assert survives(path)
    write_arrays(file, arrays)


@pytest.mark.parametrize(
  "name", ["gemma_scope", "gemma_scope_2", "sae_lens", "circuit_tracer"]
)
def test_negative_thresholds(name, tmp_path):
  path = sample(name, tmp_path)
  (file,) = (file for file in files_of(path) if file.suffix in WEIGHTS)
  arrays = arrays_of(file)
  (threshold,) = (n for n in arrays if n.endswith("threshold"))
  write_arrays(file, arrays | {threshold: -arrays[threshold]})
  assert "threshold" in survives(path)


@pytest.mark.parametrize("name", ["gemma_scope", "qwen_scope"])
def test_a_message_does_not_quote_the_file(name, tmp_path):
  """Libraries do: here a name in a zip that reaches over all that follows."""
  path = sample(name, tmp_path)
  (file,) = files_of(path)
  content = bytearray(file.read_bytes())
  with zipfile.ZipFile(file) as archive:
    for member in archive.infolist():
      content[member.header_offset + 27] = 4
  file.write_bytes(content)
  assert len(survives(path)) < len(str(file)) + 300


# Files that would run code, or take all memory.


class Harmful:
  """Makes a folder when it is unpickled."""

  def __init__(self, folder):
    self._folder = str(folder)

  def __reduce__(self):
    return os.mkdir, (self._folder,)


@every_format
def test_no_code_is_run(name, tmp_path):
  path = sample(name, tmp_path)
  harmful = Harmful(tmp_path / "made")
  code = f"!!python/object/apply:os.mkdir [{tmp_path / 'made'}]"
  for file in files_of(path):
    before = file.read_bytes()
    if file.suffix == ".npz":
      objects = np.array([harmful], object)
      np.savez(file, **(arrays_of(file) | {"W_enc": objects}))
    elif file.suffix == ".pt":
      torch.save({"W_enc": harmful}, file)
    elif file.suffix == ".yaml":
      file.write_text(f"model_kind: {code}")
    else:
      file.write_bytes(pickle.dumps(harmful))
    assert survives(path)
    file.write_bytes(before)
  assert not (tmp_path / "made").exists()


@every_format
def test_promises_of_endless_arrays(name, tmp_path):
  """A file with holes is as long as it likes, and takes no disk."""
  path = sample(name, tmp_path)
  weights = [file for file in files_of(path) if file.suffix in WEIGHTS]
  for file in weights:
    before = file.read_bytes()
    if file.suffix == ".safetensors":
      promise_tensors(file)
    else:
      promise_members(file)
    told = survives(path)
    assert "memory" in told or "damaged" in told or "promises" in told, told
    file.write_bytes(before)


@every_format
def test_what_does_not_fit_into_memory(name, tmp_path, monkeypatch):
  path = sample(name, tmp_path)
  monkeypatch.setattr("jaxsae.process.memory_limit", lambda: 100.0)
  assert "memory" in survives(path)


LARGE = 2**40  # floats


def promise_tensors(file):
  header, rest = header_of(file)
  name, tensor = max(
    ((n, t) for n, t in header.items() if n != "__metadata__"),
    key=lambda item: item[1]["data_offsets"][1],
  )
  begin = tensor["data_offsets"][0]
  shape = [LARGE, *[1] * (len(tensor["shape"]) - 1)]
  offsets = [begin, begin + 4 * LARGE]
  header[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
  write_header(file, header, rest)
  os.truncate(file, file.stat().st_size - len(rest) + begin + 4 * LARGE)


def promise_members(file):
  """Writes sizes into a zip's directory that its members do not have."""
  with zipfile.ZipFile(file, "a") as archive:
    archive.comment = b"changed"  # so that the directory is written again
    for member in archive.infolist():
      if not member.filename.endswith("data.pkl"):
        member.file_size = member.compress_size = 2**31 - 2


# Links and names.


@every_format
@pytest.mark.parametrize("target", ["/dev/zero", "/dev/null", ".", "nowhere"])
def test_links_to_what_is_no_file(name, target, tmp_path):
  path = sample(name, tmp_path)
  for file in files_of(path):
    before = file.read_bytes()
    file.unlink()
    file.symlink_to(target)
    survives(path)
    file.unlink()
    os.mkfifo(file)  # on which a reader would wait for ever
    survives(path)
    file.unlink()
    file.write_bytes(before)


@every_format
def test_links_out_of_the_folder_are_files_like_others(name, tmp_path):
  """The cache of Hugging Face has them; what is there is not trusted either."""
  path = sample(name, tmp_path)
  secret = tmp_path / "secret"
  secret.write_text("a line that nobody may see")
  for file in files_of(path):
    elsewhere = tmp_path / f"blob_{file.name}"
    shutil.move(file, elsewhere)
    file.symlink_to(elsewhere)
  assert survives(path) == ""
  for file in files_of(path):
    kept = os.readlink(file)
    file.unlink()
    file.symlink_to(secret)
    assert "nobody" not in survives(path)
    file.unlink()
    file.symlink_to(kept)


# Several formats in one place.

FOLDERS = sorted(name for name, (_, path) in SAMPLES.items() if path == ".")


@pytest.mark.parametrize(
  ("name", "other"), [*itertools.combinations(FOLDERS, 2)]
)
def test_each_of_two_formats_in_a_folder_is_read_as_the_error_says(
  name, other, tmp_path
):
  (tmp_path / "2").mkdir()
  folder = sample(other, tmp_path / "2")
  # Where both have a config.json, the first one's stays.
  shutil.copytree(sample(name, tmp_path), folder, dirs_exist_ok=True)
  with pytest.raises(UserError, match=rf"{name}.*{other}|{other}.*{name}") as e:
    load_sae(folder)
  if {name, other} == {"gemma_scope_2", "dictionary_learning"}:
    with pytest.raises(UserError, match="more than one format"):
      load_sae(folder / "config.json")  # which is of both
  named = re.split(r" or |; give ", str(e.value).removesuffix("."))[1:]
  found = {format_of(path).name: path for path in named}
  assert found.keys() == {name, other}
  is_whole(load_sae(found[name]))
