"""Reads and writes `config.json`, Hugging Face's file of a model's sizes."""

import dataclasses
import math
import typing

from jaxsae.errors import UserError
from jaxsae.lm.config import GemmaConfig

# Our field → theirs, for all fields that are copied unchanged.
_FIELDS = {
  "vocab_size": "vocab_size",
  "num_layers": "num_hidden_layers",
  "embed_dim": "hidden_size",
  "hidden_dim": "intermediate_size",
  "num_heads": "num_attention_heads",
  "num_kv_heads": "num_key_value_heads",
  "head_dim": "head_dim",
  "query_pre_attn_scalar": "query_pre_attn_scalar",
  "window": "sliding_window",
  "context": "max_position_embeddings",
  "attn_softcap": "attn_logit_softcapping",
  "final_softcap": "final_logit_softcapping",
  "norm_eps": "rms_norm_eps",
}

# Gemma 3's files omit fields that have transformers' default.
GEMMA3_DEFAULTS = {
  "vocab_size": 262_208,
  "num_hidden_layers": 26,
  "hidden_size": 2304,
  "intermediate_size": 9216,
  "num_attention_heads": 8,
  "num_key_value_heads": 4,
  "head_dim": 256,
  "query_pre_attn_scalar": 256,
  "sliding_window": 4096,
  "max_position_embeddings": 131_072,
  "attn_logit_softcapping": None,
  "final_logit_softcapping": None,
  "rms_norm_eps": 1e-6,
}

# Fields with the same value in every model, and the values that are accepted.
_FIXED = {
  "hidden_activation": ("gelu_pytorch_tanh",),
  "attention_bias": (False,),
  "tie_word_embeddings": (True,),
  "use_bidirectional_attention": (False, None),
}

_LOCAL, _GLOBAL = "sliding_attention", "full_attention"


def config_from_json(data: object, where: str) -> GemmaConfig:
  """Makes a GemmaConfig of `config.json`; UserError names a wrong field.

  The files have one layout of the gating weights for all sizes, so the config
  has `transpose_gating` even for Gemma 2 2B, whose official weights do not.
  """
  content = data if isinstance(data, dict) else {}
  kind = content.get("model_type")
  if kind == "gemma2":
    return _gemma2(content, where)
  if kind == "gemma3_text":
    return _gemma3(content, where)
  if kind == "gemma3":  # a multimodal model; text_config is its language model
    text = content.get("text_config")
    if not isinstance(text, dict):
      raise UserError(f"{where} has no text_config.")
    _check_fixed(content, where)
    return _gemma3(text, where)
  raise UserError(
    f"{where} is a {kind!r} model; only 'gemma2', 'gemma3' and 'gemma3_text'"
    " load."
  )


def _gemma2(data: dict, where: str) -> GemmaConfig:
  missing = [x for x in _FIELDS.values() if x not in data]
  if missing:
    raise UserError(f"{where} lacks {', '.join(missing)}.")
  base, scale = _rope(
    {"rope_theta": data.get("rope_theta", 10_000.0)}
    | _object(data, "rope_parameters", where)
    | _object(data, "rope_scaling", where),
    where,
  )
  if scale != 1:
    raise UserError(
      f"The RoPE in {where} is scaled by {scale}; Gemma 2's is not scaled."
    )
  rope = {"rope_base": base, "global_rope_base": base}
  return _config(data, rope, 2, where)


def _gemma3(data: dict, where: str) -> GemmaConfig:
  data = GEMMA3_DEFAULTS | data
  cap = data["attn_logit_softcapping"]
  if cap is not None:
    raise UserError(
      f"attn_logit_softcapping in {where} is {cap!r}; Gemma 3 has none."
    )
  (base, scale), (global_base, global_scale) = _ropes(data, where)
  if scale != 1:
    raise UserError(
      f"The RoPE of local layers in {where} is scaled by {scale}; Gemma 3's is"
      " scaled in global layers only."
    )
  rope = {
    "rope_base": base,
    "global_rope_base": global_base,
    "global_rope_scale": global_scale,
  }
  return _config(data, rope | {"qk_norm": True}, 6, where)


def _ropes(data: dict, where: str):
  """Returns RoPE's base and scale of local layers, and of global layers.

  Files of transformers 5 have one object for each kind of layer.
  """
  nested = _object(data, "rope_parameters", where)
  if nested.keys() - {_LOCAL, _GLOBAL}:
    raise UserError(
      f"rope_parameters in {where} has {', '.join(nested)}; Gemma 3's has"
      f" {_LOCAL} and {_GLOBAL}."
    )
  local = {"rope_theta": data.get("rope_local_base_freq", 10_000.0)}
  global_ = {"rope_theta": data.get("rope_theta", 1_000_000.0)}
  local |= _object(nested, _LOCAL, where)
  global_ |= _object(nested, _GLOBAL, where)
  global_ |= _object(data, "rope_scaling", where)
  return _rope(local, where), _rope(global_, where)


def _object(data: dict, name: str, where: str) -> dict:
  found = data.get(name)
  if not isinstance(found, dict | None):
    raise UserError(f"{name} in {where} is {found!r}, not a JSON object.")
  return found or {}


def _rope(given: dict, where: str) -> tuple[float, float]:
  """Returns the base of a RoPE, and the divisor of its positions."""
  kind = given.get("rope_type", given.get("type", "default"))
  known = {"rope_type", "type", "rope_theta"}
  if kind == "linear":
    known |= {"factor"}
  elif kind != "default":
    raise UserError(
      f"The RoPE in {where} is of type {kind!r}; only 'default' and 'linear'"
      " are supported."
    )
  if given.keys() - known:
    raise UserError(
      f"The RoPE in {where} has {', '.join(sorted(given.keys() - known))},"
      f" which is not supported in a RoPE of type {kind!r}."
    )
  base, scale = given["rope_theta"], given.get("factor", 1.0)
  _check_number("rope_theta", base, (int, float), where)
  _check_number("factor", scale, (int, float), where)
  return base, scale


def _config(data: dict, more: dict, every: int, where: str) -> GemmaConfig:
  """Makes a config from the fields that Gemma 2 and 3 share and from `more`.

  Args:
    data: the content of the file.
    more: fields of GemmaConfig that are known already.
    every: every n-th layer is global, if the file does not say.
    where: the name of the file, for messages.
  """
  _check_fixed(data, where)
  for field in dataclasses.fields(GemmaConfig):
    if field.name in _FIELDS:
      more[field.name] = data[_FIELDS[field.name]]
      _check_field(field, more[field.name], where)
  more["locals_per_global"] = _locals_per_global(data, every, where)
  return GemmaConfig(**more)


def _check_fixed(data: dict, where: str) -> None:
  for name, values in _FIXED.items():
    if data.get(name, values[0]) not in values:
      raise UserError(
        f"{name} in {where} is {data[name]!r}, not {values[0]!r}."
      )


def _check_field(field: dataclasses.Field, value, where: str) -> None:
  types = (field.type, *typing.get_args(field.type))
  if value is None and type(None) in types:
    return
  kinds = (int, float) if float in types else (int,)
  _check_number(_FIELDS[field.name], value, kinds, where)


def _check_number(name: str, value, kinds: tuple[type, ...], where: str):
  if type(value) not in kinds or not 0 < value < math.inf:
    what = "number" if float in kinds else "whole number"
    raise UserError(f"{name} in {where} is {value!r}, not a positive {what}.")


def _locals_per_global(data: dict, every: int, where: str) -> int:
  """Returns the number of local layers before each global one."""
  layers, kinds = data["num_hidden_layers"], data.get("layer_types")
  every = data.get("sliding_window_pattern", every)
  _check_number("sliding_window_pattern", every, (int,), where)
  if kinds is None:
    return every - 1
  # A model with fewer layers than the pattern does not show all of it.
  if isinstance(kinds, list) and len(kinds) == layers:
    first = kinds.index(_GLOBAL) + 1 if _GLOBAL in kinds else layers + 1
    for pattern in (every, first):
      if kinds == _layer_types(layers, pattern):
        return pattern - 1
  raise UserError(
    f"layer_types in {where} must repeat a fixed number of {_LOCAL!r} followed"
    f" by one {_GLOBAL!r}, over all {layers} layers."
  )


def _layer_types(layers: int, every: int) -> list[str]:
  return [_LOCAL if (i + 1) % every else _GLOBAL for i in range(layers)]


def config_to_json(
  config: GemmaConfig, bos: int, eos: int | None, pad: int
) -> dict:
  """Makes the `config.json` of Hugging Face's Gemma2Config or Gemma3TextConfig.

  Raises:
    UserError: neither can express the config.
  """
  kind = _gemma3_to_json if config.qk_norm else _gemma2_to_json
  every = config.locals_per_global + 1
  return {
    **kind(config),
    **{theirs: getattr(config, ours) for ours, theirs in _FIELDS.items()},
    **{name: values[0] for name, values in _FIXED.items()},
    "layer_types": _layer_types(config.num_layers, every),
    "sliding_window_pattern": every,
    "bos_token_id": bos,
    "eos_token_id": eos,
    "pad_token_id": pad,
  }


def _gemma2_to_json(config: GemmaConfig) -> dict:
  rope = (config.global_rope_base, config.global_rope_scale)
  if rope != (config.rope_base, 1):
    raise UserError(
      f"A Gemma 2 has one RoPE; global_rope_base={rope[0]} and"
      f" global_rope_scale={rope[1]} must be {config.rope_base} and 1 to write"
      " it as one."
    )
  return {
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "rope_theta": config.rope_base,
  }


def _gemma3_to_json(config: GemmaConfig) -> dict:
  if config.attn_softcap is not None:
    raise UserError(
      f"A Gemma 3 has no attn_softcap; {config.attn_softcap} must be None to"
      " write it as one."
    )
  scale = config.global_rope_scale
  scaling = {"rope_type": "linear", "factor": scale} if scale != 1 else None
  return {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "rope_theta": config.global_rope_base,
    "rope_local_base_freq": config.rope_base,
    "rope_scaling": scaling,
  }
