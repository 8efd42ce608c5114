"""Gemma 2 and 3 as transformers writes and reads them."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from safetensors import numpy as safetensors

from jaxsae.errors import UserError
from jaxsae.lm import GemmaConfig, load_lm, save_lm
from jaxsae.lm.config import (
  PUBLISHED,
  gemma2_2b,
  gemma3_1b,
  gemma3_4b,
  gemma3_12b,
  gemma3_27b,
)
from jaxsae.lm.formats.config_json import (
  GEMMA3_DEFAULTS,
  config_from_json,
  config_to_json,
)
from jaxsae.lm.formats.huggingface import plain_name
from tests.libraries import need


def read(data) -> GemmaConfig:
  """Reads a config as from a file."""
  return config_from_json(json.loads(json.dumps(data)), "config.json")


def refuses(data, match):
  with pytest.raises(UserError, match=match) as error:
    read(data)
  assert "\n" not in str(error.value)


# config.json.


def test_the_defaults_are_those_of_transformers():
  config = transformers.Gemma3TextConfig()
  assert {name: getattr(config, name) for name in GEMMA3_DEFAULTS} == (
    GEMMA3_DEFAULTS
  )
  assert read({"model_type": "gemma3_text"}) == read(config.to_dict())


# The text_config of the published files, from which all defaults are left out.
LINEAR = {"factor": 8.0, "rope_type": "linear"}
PUBLISHED_TEXTS = [
  (
    gemma3_4b(),
    {
      "hidden_size": 2560,
      "intermediate_size": 10_240,
      "num_hidden_layers": 34,
    },
  ),
  (
    gemma3_12b(),
    {
      "hidden_size": 3840,
      "intermediate_size": 15_360,
      "num_hidden_layers": 48,
      "num_attention_heads": 16,
      "num_key_value_heads": 8,
    },
  ),
  (
    gemma3_27b(),
    {
      "hidden_size": 5376,
      "intermediate_size": 21_504,
      "num_hidden_layers": 62,
      "num_attention_heads": 32,
      "num_key_value_heads": 16,
      "head_dim": 128,
      "query_pre_attn_scalar": 168,
    },
  ),
]


@pytest.mark.parametrize("ours, text", PUBLISHED_TEXTS)
def test_the_published_files_of_multimodal_models_are_read(ours, text):
  text |= {
    "model_type": "gemma3_text",
    "rope_scaling": LINEAR,
    "sliding_window": 1024,
  }
  whole = {"model_type": "gemma3", "text_config": text, "vision_config": {}}
  # Rounded up: the embedding has rows for the tokens of images.
  assert read(whole) == dataclasses.replace(ours, vocab_size=262_208)


@pytest.mark.parametrize("name", PUBLISHED)
def test_transformers_reads_what_is_written(name):
  """transformers' class, made from our JSON, has the same sizes."""
  ours = PUBLISHED[name]()
  data = config_to_json(ours, 2, 1, 0)
  kind = {"gemma2": "Gemma2Config", "gemma3_text": "Gemma3TextConfig"}
  theirs = getattr(transformers, kind[data["model_type"]])(**data)
  assert [ours.is_local(i) for i in range(ours.num_layers)] == [
    kind == "sliding_attention" for kind in theirs.layer_types
  ]
  files = dataclasses.replace(ours, transpose_gating=True)
  assert read(data) == files
  assert read(theirs.to_dict()) == files


@pytest.mark.parametrize("name", [n for n in PUBLISHED if "gemma3" in n])
def test_transformers_5_describes_multimodal_models_the_same(name):
  ours = PUBLISHED[name]()
  text = transformers.Gemma3TextConfig(**config_to_json(ours, 2, 1, 0))
  assert read(transformers.Gemma3Config(text_config=text).to_dict()) == ours


def as_json(config, **changes):
  return config_to_json(config, 2, 1, 0) | changes


def few_layers(config, layers):
  return dataclasses.replace(config, num_layers=layers, transpose_gating=True)


@pytest.mark.parametrize("layers", [1, 5, 6, 7, 11, 12])
@pytest.mark.parametrize("pattern", [0, 1, 2, 5, 9])
def test_any_number_of_local_layers_is_read_back(layers, pattern):
  for config in (gemma2_2b(), gemma3_1b()):
    config = few_layers(config, layers)
    config = dataclasses.replace(config, locals_per_global=pattern)
    assert read(as_json(config)) == config


def kinds(text):
  names = {"L": "sliding_attention", "G": "full_attention"}
  return [names[letter] for letter in text]


@pytest.mark.parametrize(
  "text, pattern", [("LLGLLG", 2), ("LLLLGL", 4), ("GGGGGG", 0), ("LLLLLG", 5)]
)
def test_the_pattern_is_found_in_the_layers(text, pattern):
  data = as_json(few_layers(gemma3_1b(), 6), layer_types=kinds(text))
  assert read(data).locals_per_global == pattern
  del data["sliding_window_pattern"]
  assert read(data).locals_per_global == pattern


@pytest.mark.parametrize("pattern", [1, 3, 6])
def test_older_files_that_give_only_the_pattern_are_read(pattern):
  data = as_json(few_layers(gemma3_1b(), 6), sliding_window_pattern=pattern)
  del data["layer_types"]
  assert read(data).locals_per_global == pattern - 1


@pytest.mark.parametrize(
  "types",
  [
    kinds("GLLLLL"),
    kinds("LLGLGL"),
    kinds("LLLLG"),
    kinds("LLLLLGL"),
    ["chunked_attention"] * 6,
    [[]] * 6,
    6,
  ],
)
def test_another_pattern_is_refused(types):
  data = as_json(few_layers(gemma3_1b(), 6), layer_types=types)
  refuses(data, r"layer_types in config\.json .* 6 layers")


@pytest.mark.parametrize("pattern", [0, -1, 2.0, True, None, "6"])
def test_an_impossible_pattern_is_refused(pattern):
  data = as_json(gemma3_1b(), sliding_window_pattern=pattern)
  refuses(data, "sliding_window_pattern in config.json is .*, not a positive")


def test_both_ways_to_write_ropes_are_read():
  config = gemma3_4b()
  old = as_json(config, rope_theta=5e5, rope_local_base_freq=2e4)
  new = {k: v for k, v in old.items() if not k.startswith("rope")}
  new["rope_parameters"] = {
    "full_attention": LINEAR | {"rope_theta": 5e5},
    "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
  }
  expected = dataclasses.replace(
    config, rope_base=2e4, global_rope_base=5e5, global_rope_scale=8.0
  )
  assert read(old) == read(new) == expected
  older = old | {"rope_scaling": {"type": "linear", "factor": 8.0}}
  assert read(older) == expected


YARN = {"rope_type": "yarn", "factor": 8.0}


@pytest.mark.parametrize(
  "changes, match",
  [
    ({"rope_scaling": YARN}, "is of type 'yarn'; only 'default' and 'linear'"),
    ({"rope_scaling": {"type": "dynamic"}}, "is of type 'dynamic'"),
    ({"rope_scaling": LINEAR | {"beta_fast": 3}}, "RoPE in .* has beta_fast,"),
    ({"rope_scaling": {"factor": 8.0}}, "has factor, .* of type 'default'"),
    ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "factor in"),
    ({"rope_scaling": 8.0}, "rope_scaling in .* is 8.0, not a JSON object"),
    ({"rope_parameters": {"full_attention": YARN}}, "is of type 'yarn'"),
    ({"rope_parameters": {"sliding_attention": LINEAR}}, "local layers in"),
    ({"rope_parameters": YARN}, "rope_parameters in .* has rope_type, factor"),
    ({"rope_parameters": {"full_attention": 3}}, "not a JSON object"),
    ({"rope_local_base_freq": -1}, "rope_theta in .* is -1, not a positive"),
  ],
)
def test_a_rope_that_is_not_supported_is_named(changes, match):
  refuses(as_json(gemma3_1b()) | changes, match)


@pytest.mark.parametrize(
  "changes, match",
  [
    ({"rope_scaling": YARN}, "is of type 'yarn'"),
    ({"rope_parameters": YARN | {"rope_theta": 1e4}}, "is of type 'yarn'"),
    ({"rope_scaling": LINEAR}, "scaled by 8.0; Gemma 2's is not"),
    ({"rope_parameters": {"full_attention": {}}}, "has full_attention"),
    ({"use_bidirectional_attention": True}, "use_bidirectional_attention in"),
  ],
)
def test_gemma_2_has_one_rope_and_no_scaling(changes, match):
  refuses(as_json(gemma2_2b()) | changes, match)


@pytest.mark.parametrize(
  "changes, match",
  [
    ({"use_bidirectional_attention": True}, "is True, not False"),
    ({"attn_logit_softcapping": 50.0}, "is 50.0; Gemma 3 has none"),
    ({"tie_word_embeddings": False}, "tie_word_embeddings in"),
    ({"sliding_window": None}, "sliding_window in .* is None, not a positive"),
    ({"head_dim": "256"}, "head_dim in .* is '256', not a positive whole"),
  ],
)
def test_features_that_gemma_3_lacks_are_named(changes, match):
  refuses(as_json(gemma3_1b()) | changes, match)
  text = as_json(gemma3_1b()) | changes
  refuses({"model_type": "gemma3", "text_config": text}, match)


def test_a_multimodal_model_needs_a_text_config():
  for text in (None, [], "gemma3_text"):
    refuses({"model_type": "gemma3", "text_config": text}, "has no text_config")
  untied = {"tie_word_embeddings": False, "text_config": {}}
  refuses({"model_type": "gemma3"} | untied, "tie_word_embeddings in")


@pytest.mark.parametrize(
  "config, match",
  [
    (dataclasses.replace(gemma3_1b(), attn_softcap=50.0), "no attn_softcap"),
    (dataclasses.replace(gemma2_2b(), global_rope_base=1e6), "has one RoPE"),
    (dataclasses.replace(gemma2_2b(), global_rope_scale=8.0), "has one RoPE"),
  ],
)
def test_a_config_that_the_file_cannot_express_is_refused(config, match):
  with pytest.raises(UserError, match=match):
    config_to_json(config, 2, 1, 0)


# Weights.


@pytest.mark.parametrize(
  "name, plain",
  [
    ("model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
    ("language_model.model.norm.weight", "model.norm.weight"),
    ("model.language_model.norm.weight", "model.norm.weight"),
    ("lm_head.weight", None),
    ("language_model.lm_head.weight", None),
    ("vision_tower.vision_model.head.weight", None),
    ("model.multi_modal_projector.mm_soft_emb_norm.weight", None),
    (
      "model.lm_head.weight",
      "model.lm_head.weight",
    ),  # not a known prefix, so a surplus tensor
  ],
)
def test_plain_name_removes_every_prefix(name, plain):
  assert plain_name(name) == plain


@pytest.fixture(scope="module")
def tiny():
  """Makes a Gemma 3 in which local layers see less than the whole text."""
  return GemmaConfig(
    vocab_size=64,
    num_layers=4,
    embed_dim=32,
    hidden_dim=48,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    query_pre_attn_scalar=12,
    window=5,
    context=64,
    attn_softcap=None,
    final_softcap=None,  # which transformers omits for multimodal models
    rope_base=100.0,
    locals_per_global=2,
    qk_norm=True,
    global_rope_base=1000.0,
    global_rope_scale=8.0,
  )


@pytest.fixture(scope="module")
def torch():
  return need("torch")


def their_logits(torch, model, tokens):
  with torch.no_grad():
    return model(torch.tensor(np.asarray(tokens))).logits.numpy()


def randomise_norms(torch, model):
  """Sets the norms to random values."""
  generator = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for name, x in model.named_parameters():
      if "norm" in name:
        x.copy_(0.3 * torch.randn(x.shape, generator=generator))
  return model.eval()


@pytest.fixture(scope="module")
def multimodal(torch, tiny, tmp_path_factory):
  """Makes a multimodal Gemma 3; returns it and where transformers saved it."""
  text = transformers.Gemma3TextConfig(**as_json(tiny))
  vision = transformers.SiglipVisionConfig(
    hidden_size=8,
    intermediate_size=8,
    num_hidden_layers=1,
    num_attention_heads=1,
    image_size=28,
    patch_size=14,
  )
  config = transformers.Gemma3Config(
    text_config=text, vision_config=vision, mm_tokens_per_image=4
  )
  torch.manual_seed(0)
  model = transformers.Gemma3ForConditionalGeneration(config)
  path = tmp_path_factory.mktemp("multimodal")
  randomise_norms(torch, model).save_pretrained(path)
  return model, path


def test_the_language_model_of_a_multimodal_model_is_loaded(
  torch, multimodal, tiny, tokens
):
  model, path = multimodal
  lm = load_lm(path)
  assert lm.config == tiny
  np.testing.assert_allclose(
    lm.logits(tokens), their_logits(torch, model, tokens), atol=1e-4
  )


def test_transformers_loads_what_is_saved(
  torch, multimodal, tiny, tokens, tmp_path
):
  lm = load_lm(multimodal[1])
  save_lm(lm, tmp_path / "lm", dtype=jnp.float32)
  model, loading = transformers.Gemma3ForCausalLM.from_pretrained(
    tmp_path / "lm", dtype=torch.float32, output_loading_info=True
  )
  assert not any(loading.values())
  np.testing.assert_allclose(
    lm.logits(tokens), their_logits(torch, model, tokens), atol=1e-4
  )


def test_weights_are_written_as_they_were_read(multimodal, tmp_path):
  save_lm(load_lm(multimodal[1]), tmp_path / "lm", dtype=jnp.float32)
  files = [
    multimodal[1] / "model.safetensors",
    tmp_path / "lm/model.safetensors",
  ]
  theirs, ours = (safetensors.load_file(file) for file in files)
  theirs = {plain_name(name): x for name, x in theirs.items()}
  theirs.pop(None)
  assert ours.keys() == theirs.keys()
  for name, x in ours.items():
    np.testing.assert_array_equal(x, theirs[name])
