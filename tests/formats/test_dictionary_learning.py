"""dictionary_learning's files are read as its own code computes them."""

import collections
import json
import os
import pickle
import zipfile

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from etils import epath

from jaxsae import load_sae
from jaxsae.errors import UserError
from jaxsae.formats import torch_zip
from jaxsae.formats.dictionary_learning import CONFIG, FILE, DictionaryLearning
from jaxsae.lm import Site, Taps
from tests.libraries import need

torch = need("torch")

D, F, K = 6, 24, 3


def tensor(*shape, seed=0):
  made = np.random.default_rng(seed + sum(shape)).normal(size=shape)
  return torch.tensor(made.astype(np.float32))


LINEAR = {
  "encoder.weight": tensor(F, D),
  "encoder.bias": tensor(F),
  "decoder.weight": tensor(D, F, seed=1),
}
TOPK = LINEAR | {
  "b_dec": tensor(D),
  "k": torch.tensor(K, dtype=torch.int),
  "threshold": torch.tensor(0.7),
}
PLAIN = {
  "W_enc": tensor(D, F),
  "b_enc": tensor(F),
  "W_dec": tensor(F, D, seed=1),
  "b_dec": tensor(D),
}
STATES = {
  "AutoEncoder": LINEAR | {"bias": tensor(D)},
  "AutoEncoderNew": LINEAR | {"decoder.bias": tensor(D)},
  "GatedAutoEncoder": {
    "encoder.weight": tensor(F, D),
    "decoder.weight": tensor(D, F, seed=1),
    "decoder_bias": tensor(D),
    "r_mag": tensor(F, seed=2),
    "mag_bias": tensor(F, seed=3),
    "gate_bias": tensor(F, seed=4),
  },
  "JumpReluAutoEncoder": PLAIN | {"threshold": tensor(F, seed=5).abs()},
  "AutoEncoderTopK": TOPK,
  "BatchTopKSAE": TOPK,
  "MatryoshkaBatchTopKSAE": PLAIN
  | {
    "k": torch.tensor(K, dtype=torch.int),
    "threshold": torch.tensor(0.7),
    "group_sizes": torch.tensor([8, 16]),
  },
}


def encoded(kind, s, x):
  """Latents as the class of that name computes them."""
  relu = torch.relu
  if kind in ("AutoEncoder", "AutoEncoderNew"):
    bias = s.get("bias", torch.zeros(D))
    norms = s["decoder.weight"].norm(dim=0) if kind == "AutoEncoder" else 1
    pre = (x - bias) @ s["encoder.weight"].T + s["encoder.bias"]
    return relu(pre) * norms
  if kind == "GatedAutoEncoder":
    inner = (x - s["decoder_bias"]) @ s["encoder.weight"].T
    gate = (inner + s["gate_bias"] > 0).float()
    return gate * relu(s["r_mag"].exp() * inner + s["mag_bias"])
  if kind == "JumpReluAutoEncoder":
    pre = x @ s["W_enc"] + s["b_enc"]
    return relu(pre * (pre > s["threshold"]))
  if kind == "MatryoshkaBatchTopKSAE":
    post = relu((x - s["b_dec"]) @ s["W_enc"] + s["b_enc"])
    return post * (post > s["threshold"])
  post = relu((x - s["b_dec"]) @ s["encoder.weight"].T + s["encoder.bias"])
  if kind == "BatchTopKSAE":
    return post * (post > s["threshold"])
  top = post.topk(K, dim=-1)
  return torch.zeros_like(post).scatter_(-1, top.indices, top.values)


def decoded(kind, s, latents):
  if "W_dec" in s:
    return latents @ s["W_dec"] + s["b_dec"]
  weight = s["decoder.weight"]
  if kind == "AutoEncoder":
    weight = weight / weight.norm(dim=0)
  names = ("bias", "decoder.bias", "decoder_bias", "b_dec")
  bias = next(s[name] for name in names if name in s)
  return latents @ weight.T + bias


@pytest.fixture
def saved(tmp_path):
  """`saved(kind, …)`: a folder as dictionary_learning writes it."""

  def of(kind, state=None, **trainer):
    folder = tmp_path / kind
    folder.mkdir()
    state = STATES[kind] if state is None else state
    torch.save(collections.OrderedDict(state), folder / FILE)
    config = {
      "dict_class": kind,
      "layer": 12,
      "lm_name": "google/gemma-2-2b",
      "submodule_name": "resid_post_layer_12",
    }
    content = {"trainer": config | trainer, "buffer": {"ctx_len": 1024}}
    (folder / CONFIG).write_text(json.dumps(content))
    return folder

  return of


@pytest.mark.parametrize("kind", STATES)
def test_it_computes_what_dictionary_learning_does(saved, kind):
  ours = load_sae(saved(kind))
  x = tensor(50, D, seed=9)
  latents = encoded(kind, STATES[kind], x)
  found = np.asarray(ours.encode(x.numpy()))
  np.testing.assert_allclose(found, latents.numpy(), rtol=1e-5, atol=2e-5)
  whole = decoded(kind, STATES[kind], latents)
  np.testing.assert_allclose(ours(x.numpy()), whole, rtol=1e-5, atol=1e-4)
  assert 0 < (found > 0).mean() < 1


def test_the_configuration_tells_site_and_model(saved):
  found = DictionaryLearning().read(saved("BatchTopKSAE"))
  assert found.taps == Taps.of(Site("resid", 12))
  assert found.model == "gemma2-2b-pt"


def test_parameters_views_and_other_types_are_read(tmp_path):
  base = torch.arange(24.0).reshape(4, 6)
  state = {
    "view": base[1:, ::2],
    "transposed": base.T,
    "parameter": torch.nn.Parameter(base),
    "half": base.half(),
    "bfloat": base.bfloat16(),
    "double": base.double(),
    "whole": torch.tensor(3),
  }
  torch.save(state, tmp_path / "x.pt")
  found = torch_zip.read(epath.Path(tmp_path / "x.pt"))
  for name, x in state.items():
    np.testing.assert_array_equal(
      np.asarray(found[name], np.float64), x.detach().double().numpy()
    )


class Harmful:
  """Makes a file when it is unpickled."""

  def __init__(self, function, *arguments):
    self._reduced = function, arguments

  def __reduce__(self):
    return self._reduced


def test_code_is_never_run(saved, tmp_path):
  folder = saved("JumpReluAutoEncoder")
  made = tmp_path / "made"
  state = dict(STATES["JumpReluAutoEncoder"])
  state["threshold"] = Harmful(os.mkdir, str(made))
  torch.save(state, folder / FILE)
  with pytest.raises(UserError, match=r"posix\.mkdir"):
    load_sae(folder)
  assert not made.exists()


@pytest.mark.parametrize(
  "function", [eval, exec, getattr, __import__, print, os.system]
)
def test_no_function_is_found_by_another_name(tmp_path, function):
  file = tmp_path / "x.pt"
  with zipfile.ZipFile(file, "w") as archive:
    archive.writestr("x/data.pkl", pickle.dumps(Harmful(function, "1")))
  with pytest.raises(UserError, match=str(file)):
    torch_zip.read(epath.Path(file))


def write_tensor(file, shape, strides, offset=0, count=4):
  """Writes one tensor with any sizes, as torch would."""

  class Storage:
    def __reduce__(self):
      raise AssertionError

  class Pickler(pickle.Pickler):
    def persistent_id(self, found):
      if isinstance(found, Storage):
        return "storage", torch.FloatStorage, "0", "cpu", count
      return None

  class Tensor:
    def __reduce__(self):
      arguments = (Storage(), offset, shape, strides, False, {})
      return torch._utils._rebuild_tensor_v2, arguments

  with zipfile.ZipFile(file, "w") as archive:
    with archive.open("x/data.pkl", "w") as opened:
      Pickler(opened, protocol=2).dump({"a": Tensor()})
    archive.writestr("x/data/0", np.ones(count, np.float32).tobytes())


@pytest.mark.parametrize(
  ("shape", "strides", "offset"),
  [
    ((5,), (1,), 0),
    ((2, 2), (2, 1), 1),
    ((4,), (1,), 1),
    ((10**12,), (0,), 0),
    ((2,), (10**15,), 0),
    ((-1,), (1,), 0),
    ((2,), (-1,), 2),
    ((1,), (1,), -1),
    ((2.0,), (1,), 0),
    ((2,), (1, 1), 0),
  ],
)
def test_sizes_that_a_storage_has_not_are_refused(
  tmp_path, shape, strides, offset
):
  file = tmp_path / "x.pt"
  write_tensor(file, (2, 2), (2, 1))
  assert torch_zip.read(epath.Path(file))["a"].shape == (2, 2)
  write_tensor(file, shape, strides, offset)
  with pytest.raises(UserError, match="damaged"):
    torch_zip.read(epath.Path(file))


def test_bytes_that_unpack_to_more_are_refused(tmp_path):
  file = tmp_path / "x.pt"
  with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("x/data.pkl", pickle.dumps({"a": b"0" * 10**7}))
  with pytest.raises(UserError, match="compressed"):
    torch_zip.read(epath.Path(file))


def test_a_memo_that_takes_all_memory_is_refused(tmp_path):
  file = tmp_path / "x.pt"
  huge = b"\x80\x02}r" + (2**31 - 2).to_bytes(4, "little") + b"."
  with zipfile.ZipFile(file, "w") as archive:
    archive.writestr("x/data.pkl", huge)
  with pytest.raises(UserError, match="memo"):
    torch_zip.read(epath.Path(file))


@hypothesis.given(st.data())
def test_no_damage_is_a_traceback(tmp_path_factory, data):
  file = tmp_path_factory.mktemp("x") / "x.pt"
  torch.save(dict(PLAIN), file)
  content = bytearray(file.read_bytes())
  for _ in range(data.draw(st.integers(1, 4))):
    where = data.draw(st.integers(0, len(content) - 1))
    content[where] = data.draw(st.integers(0, 255))
  file.write_bytes(content[: data.draw(st.integers(1, len(content)))])
  try:
    torch_zip.read(epath.Path(file))
  except UserError as error:
    assert str(file) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
  ("kind", "change", "told"),
  [
    ("JumpReluAutoEncoder", {"threshold": torch.ones(3)}, "threshold"),
    ("JumpReluAutoEncoder", {"other": torch.ones(3)}, "other"),
    ("AutoEncoderTopK", {"k": torch.tensor(0)}, "k=0"),
    ("AutoEncoderTopK", {"k": torch.tensor([3])}, "k in"),
    ("BatchTopKSAE", {"threshold": torch.ones(F)}, "threshold"),
    ("GatedAutoEncoder", {"r_mag": torch.ones(2)}, "r_mag"),
    ("AutoEncoder", {"encoder.weight": torch.ones(F)}, "encoder.weight"),
    ("AutoEncoder", {"bias": torch.full((D,), np.nan)}, "b_dec"),
  ],
)
def test_a_damaged_file_is_one_sentence(saved, kind, change, told):
  folder = saved(kind, state=STATES[kind] | change)
  with pytest.raises(UserError) as refused:
    load_sae(folder)
  assert told in str(refused.value) and str(folder) in str(refused.value)
  assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["CrossCoder", None, ["AutoEncoder"], {}])
def test_another_class_is_named(saved, kind):
  folder = saved("AutoEncoder", dict_class=kind)
  with pytest.raises(UserError, match="dict_class"):
    load_sae(folder)
