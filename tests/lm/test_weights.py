"""Weights load as they were saved; damaged and foreign files are refused."""

import dataclasses
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from jaxsae.errors import UserError
from jaxsae.lm import gemma2_9b, gemma2_tiny, load_lm, save_lm
from jaxsae.lm.weights import read_sizes
from jaxsae.mesh import MeshConfig, make
from tests.libraries import need


@pytest.fixture
def copy(saved, tmp_path):
  """Copies the directory of weights, for tests that change it."""
  return shutil.copytree(saved, tmp_path / "copy")


def assert_same(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


def in_file_layout(lm):
  """Converts the gating weights to the layout of the files."""
  if lm.config.transpose_gating:
    return lm

  def turn(path, x):
    return x.mT if path[-1].key == "gating_einsum" else x

  return lm.replace(
    params=jax.tree_util.tree_map_with_path(turn, lm.params),
    config=dataclasses.replace(lm.config, transpose_gating=True),
  )


def cast(lm, dtype):
  return jax.tree.map(lambda x: x.astype(dtype), lm)


# There and back.


def test_float32_keeps_every_bit(lm, tmp_path):
  save_lm(lm, tmp_path / "lm", dtype=jnp.float32)
  back, lm = load_lm(tmp_path / "lm"), in_file_layout(lm)
  assert_same(back.params, lm.params)
  assert (back.config, back.tokenizer) == (lm.config, None)
  assert back.name == str(tmp_path / "lm")


def test_bfloat16_is_what_is_saved_by_default(lm, tmp_path):
  save_lm(lm, tmp_path / "lm")
  half = cast(in_file_layout(lm), jnp.bfloat16)
  back = load_lm(tmp_path / "lm", dtype=jnp.bfloat16)
  assert_same(back.params, half.params)
  back = load_lm(tmp_path / "lm")
  assert_same(back.params, cast(half, jnp.float32).params)


def test_both_layouts_of_the_gating_compute_the_same(grouped, tokens):
  turned = in_file_layout(grouped).logits(tokens)
  np.testing.assert_allclose(turned, grouped.logits(tokens), atol=1e-5)


def test_weights_load_in_the_chosen_dtype(saved):
  half = load_lm(str(saved), dtype=jnp.bfloat16).params
  assert {x.dtype for x in jax.tree.leaves(half)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
  "dtype", [int, bool, "float8", "int8", complex, float, jnp.float8_e4m3fn, 3]
)
def test_weights_have_no_other_dtype(saved, grouped, tmp_path, dtype):
  with pytest.raises(UserError, match="is not a type of weights; give jax"):
    load_lm(saved, dtype=dtype)
  with pytest.raises(UserError, match="is not a type of weights"):
    save_lm(grouped, tmp_path / "new", dtype=dtype)
  assert not (tmp_path / "new").exists()


def test_weights_may_be_in_several_files(copy, grouped):
  split(copy)
  assert_same(load_lm(copy).params, in_file_layout(grouped).params)


def split(copy, parts=2):
  """Splits the weights into several files with an index."""
  tensors = sorted(safetensors.load_file(copy / "model.safetensors").items())
  os.remove(copy / "model.safetensors")
  index = {}
  for part in range(parts):
    name = f"model-{part + 1:05}-of-{parts:05}.safetensors"
    here = dict(tensors[part::parts])
    safetensors.save_file(here, copy / name)
    index |= dict.fromkeys(here, name)
  text = json.dumps({"metadata": {}, "weight_map": index})
  (copy / "model.safetensors.index.json").write_text(text)


@pytest.mark.parametrize("head", ["", "language_model."])
def test_a_copy_of_the_tied_embedding_is_not_surplus(copy, grouped, head):
  head += "lm_head.weight"
  change_tensors(copy, lambda t: {**t, head: t["model.embed_tokens.weight"]})
  assert_same(load_lm(copy).params, in_file_layout(grouped).params)


@pytest.mark.parametrize(
  "prefix", ["language_model.model.", "model.language_model."]
)
@pytest.mark.parametrize("eyes", ["", "model."])
def test_a_multimodal_model_loads_as_its_language_model(
  copy, grouped, prefix, eyes
):
  others = {
    f"{eyes}vision_tower.vision_model.post_layernorm.weight": np.ones(3),
    f"{eyes}multi_modal_projector.mm_input_projection_weight": np.ones((2, 2)),
  }
  renamed = lambda t: {k.replace("model.", prefix, 1): t[k] for k in t}
  change_tensors(copy, lambda t: renamed(t) | others)
  assert_same(load_lm(copy).params, in_file_layout(grouped).params)


@pytest.mark.parametrize(
  "prefix",
  [
    "",  # as AutoModel saves
    "language_model.",  # AutoModel, of a multimodal model
    "_orig_mod.model.",
    "module.model.",
    "module._orig_mod.",
    "base_model.model.model.",
    "_fsdp_wrapped_module.model.language_model.",
  ],
)
def test_names_of_other_ways_to_save_are_known(copy, grouped, prefix):
  rename(copy, prefix)
  assert_same(load_lm(copy).params, in_file_layout(grouped).params)


def test_wrappers_within_names_are_known(copy, grouped):
  wrapped = lambda k: k.replace(
    ".self_attn.", "._checkpoint_wrapped_module.self_attn."
  )
  change_tensors(copy, lambda t: {wrapped(k): x for k, x in t.items()})
  assert_same(load_lm(copy).params, in_file_layout(grouped).params)


def rename(path, prefix, old="model."):
  new = lambda name: prefix + name.removeprefix(old)
  change_tensors(path, lambda t: {new(name): x for name, x in t.items()})


@pytest.mark.filterwarnings("ignore")
def test_what_transformers_saves_without_a_head_loads(copy, grouped):
  need("torch")
  import transformers

  theirs = transformers.AutoModel.from_pretrained(copy)
  theirs.save_pretrained(copy / "without")
  names = safetensors.load_file(copy / "without" / "model.safetensors")
  assert "norm.weight" in names
  assert_same(load_lm(copy / "without").params, in_file_layout(grouped).params)


@pytest.mark.parametrize("shape", [(1, 1), (2, 4), (8, 1)])
@pytest.mark.parametrize("fsdp", [False, True])
def test_the_weights_lie_on_the_mesh_as_they_should(
  saved, grouped, shape, fsdp
):
  mesh = make(MeshConfig(data=shape[0], model=shape[1]))
  lm = load_lm(saved, mesh=mesh, fsdp=fsdp)
  assert lm.mesh == mesh
  assert_same(lm.params, in_file_layout(grouped).params)
  table = lm.params["embedder"]["input_embedding"]
  assert table.sharding.mesh == mesh
  part = (64 // shape[1], 32 // (shape[0] if fsdp else 1))
  assert {s.data.shape for s in table.addressable_shards} == {part}


def test_a_part_is_cast_once_for_all_devices_that_have_it(saved, monkeypatch):
  """Otherwise a host with eight devices would need eight copies."""
  make_array, made = jax.make_array_from_callback, []

  def watched(shape, where, callback, **more):
    def watched_callback(index):
      made.append(callback(index))
      return made[-1]

    return make_array(shape, where, watched_callback, **more)

  monkeypatch.setattr(jax, "make_array_from_callback", watched)
  load_lm(saved, mesh=make(MeshConfig(data=4, model=2)))
  halves = [x for x in made if x.shape == (32, 32)]  # of the embedding
  assert len(halves) == 8 and len({id(x) for x in halves}) == 2


def test_half_precision_files_load(copy, grouped):
  change_tensors(copy, lambda t: {k: t[k].astype(np.float16) for k in t})
  half = cast(in_file_layout(grouped), jnp.float16)
  assert_same(load_lm(copy).params, cast(half, jnp.float32).params)


def test_without_soft_caps_there_are_none(copy):
  change_config(copy, attn_logit_softcapping=None, final_logit_softcapping=None)
  config = load_lm(copy).config
  assert (config.attn_softcap, config.final_softcap) == (None, None)


def test_the_tokenizer_is_saved_with_the_weights(grouped, tokenizer, tmp_path):
  lm = larger(grouped, tokenizer)
  save_lm(lm, tmp_path / "lm")
  back = load_lm(tmp_path / "lm")
  assert back.tokenizer.fingerprint == tokenizer.fingerprint
  config = json.loads((tmp_path / "lm" / "config.json").read_text())
  special = [config[f"{name}_token_id"] for name in ("pad", "eos", "bos")]
  assert special == [0, 1, 2]


def test_the_tokenizer_may_be_elsewhere(grouped, tokenizer, tmp_path):
  save_lm(larger(grouped, tokenizer).replace(tokenizer=None), tmp_path / "lm")
  assert load_lm(tmp_path / "lm").tokenizer is None
  (tmp_path / "other.model").write_bytes(tokenizer.model)
  lm = load_lm(tmp_path / "lm", tokenizer=tmp_path / "other.model")
  assert lm.tokenizer.fingerprint == tokenizer.fingerprint


def test_the_tokens_that_end_a_turn_are_kept(grouped, tokenizer, tmp_path):
  save_lm(larger(grouped, tokenizer), tmp_path / "lm")
  write = lambda name, data: (tmp_path / "lm" / name).write_text(
    json.dumps(data)
  )
  assert load_lm(tmp_path / "lm").ends == (1,)
  write("generation_config.json", {"eos_token_id": [1, 7]})
  write("tokenizer_config.json", {"eos_token": tokenizer.pieces[300]})
  change_config(tmp_path / "lm", eos_token_id=5)
  lm = load_lm(tmp_path / "lm")
  assert (lm.ends, lm.tokenizer.eos) == ((1, 5, 7, 300), 5)
  save_lm(lm, tmp_path / "again")
  back = load_lm(tmp_path / "again")
  assert (back.ends, back.tokenizer.eos) == (lm.ends, 5)
  (tmp_path / "again" / "tokenizer.model").unlink()
  assert load_lm(tmp_path / "again").ends == lm.ends


def larger(lm, tokenizer):
  """Enlarges the embedding to a row for each piece."""
  table = jnp.ones((tokenizer.vocab_size, lm.config.embed_dim))
  return lm.replace(
    params=lm.params | {"embedder": {"input_embedding": table}},
    config=dataclasses.replace(lm.config, vocab_size=tokenizer.vocab_size),
    tokenizer=tokenizer,
  )


# What does not load.


def refuses(path, match):
  with pytest.raises(UserError, match=match) as error:
    load_lm(path)
  assert "\n" not in str(error.value)
  return str(error.value)


def test_a_directory_that_is_not_there(tmp_path):
  text = refuses(tmp_path / "nowhere", r"nowhere is not a language model; give")
  assert "gemma2-tiny" in text


def test_a_file_is_not_a_directory(saved):
  refuses(saved / "config.json", r"config\.json is not a language model")


def test_a_directory_without_config_is_refused(copy):
  os.remove(copy / "config.json")
  refuses(copy, r"copy is not a language model; .*no .*copy/config\.json")


@pytest.mark.parametrize("content", [b"", b"{", b"model", b"\xff\xfe{}"])
def test_a_config_that_is_not_json(copy, content):
  (copy / "config.json").write_bytes(content)
  refuses(copy, r"config\.json is not JSON")


@pytest.mark.parametrize("content", ["[]", "3", "null", "{}", '"gemma2"'])
def test_an_empty_config_is_refused(copy, content):
  (copy / "config.json").write_text(content)
  refuses(copy, r"config\.json is a None model; only 'gemma2', 'gemma3' and")


def change_config(path, **changes):
  config = json.loads((path / "config.json").read_text()) | changes
  kept = {k: v for k, v in config.items() if v is not ...}
  (path / "config.json").write_text(json.dumps(kept))


@pytest.mark.parametrize(
  "kind", ["gemma", "gemma3n", "gemma3_vision", "llama", ["gemma2"], None]
)
def test_another_kind_of_model(copy, kind):
  change_config(copy, model_type=kind)
  text = refuses(
    copy, r"config\.json is a .* model; only 'gemma2', 'gemma3' and"
  )
  assert repr(kind) in text


@pytest.mark.parametrize("name", ["head_dim", "attn_logit_softcapping"])
def test_a_size_that_is_missing(copy, name):
  change_config(copy, **{name: ...})
  refuses(copy, rf"config\.json lacks {name}")


@pytest.mark.parametrize(
  "name, value",
  [
    ("num_hidden_layers", "4"),
    ("num_key_value_heads", 0),
    ("head_dim", -8),
    ("hidden_size", 32.0),
    ("vocab_size", None),
    ("sliding_window", True),
    ("sliding_window", None),
    ("attn_logit_softcapping", 0),
    ("final_logit_softcapping", float("nan")),
    ("rope_theta", [1]),
    ("rope_theta", float("inf")),
  ],
)
def test_an_impossible_size_is_refused(copy, name, value):
  change_config(copy, **{name: value})
  refuses(copy, rf"{name} in .*config\.json is .*, not a positive")


@pytest.mark.parametrize(
  "name, value",
  [
    ("tie_word_embeddings", False),
    ("hidden_activation", "silu"),
    ("attention_bias", True),
  ],
)
def test_a_feature_that_gemma_2_does_not_have(copy, name, value):
  change_config(copy, **{name: value})
  refuses(copy, rf"{name} in .*config\.json is {value!r}, not")


@pytest.mark.parametrize("nested", [True, False])
def test_both_places_of_the_rope_base_are_read(copy, nested):
  changes = {"rope_parameters": {"rope_theta": 500, "rope_type": "default"}}
  change_config(copy, **(changes if nested else {"rope_theta": 500}))
  if nested:
    change_config(copy, rope_theta=...)
  assert load_lm(copy).config.rope_base == 500


def change_tensors(path, change):
  file = path / "model.safetensors"
  safetensors.save_file(change(safetensors.load_file(file)), file)


def test_a_missing_tensor(copy):
  gone = "model.layers.2.mlp.up_proj.weight"
  change_tensors(copy, lambda t: {k: v for k, v in t.items() if k != gone})
  refuses(copy, rf"copy does not match its config\.json: it lacks {gone}")


@pytest.mark.parametrize("inner", ["", "model."])
def test_a_prefix_that_is_not_known_is_named(copy, grouped, inner):
  rename(copy, f"teacher.{inner}")
  text = refuses(copy, "copy begin with 'teacher.'")
  assert "lacks" not in text
  rename(copy, "", "teacher.")  # as the message says
  assert_same(load_lm(copy).params, in_file_layout(grouped).params)


def test_two_models_in_one_file_are_told(copy):
  other = {"language_model.norm.weight": np.zeros(32, np.float32)}
  change_tensors(copy, lambda t: t | other)
  text = refuses(copy, r"norm\.weight in .* are the same weight")
  assert "model.norm.weight" in text and "language_model.norm.weight" in text


def test_a_layer_too_few(copy):
  change_config(copy, num_hidden_layers=3, layer_types=...)
  refuses(copy, r"unexpected model\.layers\.3\.input_layernorm\.weight, .* …")


def test_an_impossible_number_of_layers_is_refused(copy):
  change_config(copy, num_hidden_layers=10**15, layer_types=...)
  refuses(copy, r"it lacks model\.layers\.4\.input_layernorm\.weight, .* …")


@pytest.mark.parametrize(
  "name", ["model.layers.0.mlp.up_proj.weight", "lm_head.weight"]
)
def test_an_index_that_names_a_file_which_is_not_there(copy, name):
  split(copy)
  index = json.loads((copy / "model.safetensors.index.json").read_text())
  index["weight_map"][name] = "../model-00003.safetensors"
  (copy / "model.safetensors.index.json").write_text(json.dumps(index))
  refuses(copy, r"copy lacks \.\./model-00003\.safetensors, which model\.safe")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": []}'])
def test_an_index_without_a_weight_map_is_refused(copy, content):
  (copy / "model.safetensors.index.json").write_text(content)
  refuses(copy, r"index\.json (is not JSON|has no weight_map)")


@pytest.mark.parametrize("prefix", ["model.", "language_model.model."])
def test_the_same_weight_in_two_files(copy, prefix):
  twice = {f"{prefix}norm.weight": np.zeros(32, np.float32)}
  safetensors.save_file(twice, copy / "other.safetensors")
  text = refuses(
    copy, r"norm\.weight in .*model\.safetensors and .*norm\.weight"
  )
  assert "other.safetensors" in text


def test_an_extra_tensor(copy):
  change_tensors(copy, lambda t: {**t, "model.bias": np.zeros(3, np.float32)})
  refuses(copy, r"it has the unexpected model\.bias")


@pytest.mark.parametrize("shape", [(32, 64), (64,), (64, 32, 1), (65, 32)])
def test_a_wrong_shape(copy, shape):
  name = "model.embed_tokens.weight"
  change_tensors(copy, lambda t: {**t, name: np.zeros(shape, np.float32)})
  refuses(copy, r"embed_tokens.* has shape .*config\.json implies \(64, 32\)")


def test_a_type_that_is_not_float(copy):
  name = "model.norm.weight"
  change_tensors(copy, lambda t: {**t, name: np.zeros(32, np.int8)})
  refuses(
    copy, r"model\.norm\.weight in .*model\.safetensors is of type I8; only"
  )


def test_a_type_wider_than_float32_is_refused(copy):
  wide = {"model.norm.weight": np.zeros(32, np.float64)}
  change_tensors(copy, lambda t: t | wide)
  refuses(copy, r"norm\.weight in .* is of type F64; only F32, F16, BF16")


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 0.5, -1])
def test_a_truncated_file(copy, keep):
  file = copy / "model.safetensors"
  size = file.stat().st_size
  cut = {0.5: size // 2, -1: size - 1}.get(keep, keep)
  os.truncate(file, cut)
  refuses(copy, r"model\.safetensors is damaged")


def test_a_header_larger_than_the_file(copy):
  with open(copy / "model.safetensors", "r+b") as file:
    file.write((2**40).to_bytes(8, "little"))
  refuses(copy, r"model\.safetensors is damaged")


def test_no_weights_at_all(copy):
  os.remove(copy / "model.safetensors")
  refuses(copy, r"copy holds no \*\.safetensors")


def test_a_tokenizer_of_a_larger_model(copy, tokenizer):
  (copy / "tokenizer.model").write_bytes(tokenizer.model)
  refuses(copy, r"tokenizer\.model has 400 pieces, .*vocab_size=64")


def test_a_file_that_is_not_a_tokenizer_is_refused(copy):
  (copy / "tokenizer.model").write_bytes(b"hello")
  refuses(copy, r"tokenizer\.model is not a SentencePiece model")


# Directories that stay as they are.


def test_an_existing_path_is_not_overwritten(grouped, tmp_path):
  (tmp_path / "lm").mkdir()
  with pytest.raises(UserError, match=r"lm exists; remove it or choose"):
    save_lm(grouped, tmp_path / "lm")
  assert os.listdir(tmp_path / "lm") == []


def test_a_failure_leaves_nothing_behind(grouped, tmp_path, monkeypatch):
  def full(*args, **more):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr("safetensors.numpy.save_file", full)
  with pytest.raises(OSError, match="No space left"):
    save_lm(grouped, tmp_path / "lm")
  assert os.listdir(tmp_path) == []


# Buckets.


@pytest.mark.parametrize(
  "error, sentence",
  [
    (ImportError("No module named 'gcsfs'"), r"run `pip install gcsfs`"),
    (
      ConnectionError("no route\nat all"),
      r"gs://a/lm\S* .*\(no route\);.*credentials",
    ),
  ],
)
def test_a_bucket_that_cannot_be_read(monkeypatch, error, sentence):
  from etils import epath

  def fail(path):
    raise error

  monkeypatch.setattr(type(epath.Path("gs://a/lm")), "exists", fail)
  with pytest.raises(UserError, match=sentence):
    load_lm("gs://a/lm")


def test_sizes_are_read_without_weights(saved, tmp_path, grouped):
  (tmp_path / "config.json").write_text((saved / "config.json").read_text())
  expected = in_file_layout(grouped).config
  assert read_sizes(tmp_path) == expected
  assert read_sizes("gemma2-tiny") == gemma2_tiny()
  assert read_sizes("gemma2_9B-it") == gemma2_9b()
  with pytest.raises(UserError, match="nowhere is not a language model"):
    read_sizes("nowhere")
