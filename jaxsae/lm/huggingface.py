"""Gemma 2 as Hugging Face stores it: `config.json` and safetensors.

Each official parameter is one or several Hugging Face tensors, reshaped. A
`Leaf` says which, and how to go both ways, so reading and writing share one
table. Shapes: N heads, K key/value heads, D embed_dim, H head_dim, F hidden.
"""

import dataclasses
import math
import typing
from collections.abc import Callable, Iterator

import numpy as np

from jaxsae.errors import UserError
from jaxsae.lm.config import GemmaConfig

Path = tuple[str, ...]  # of a leaf in the official parameter tree


@dataclasses.dataclass(frozen=True)
class Leaf:
  """One official parameter and the tensors it is made of.

  Attributes:
    path: where it sits in the official tree.
    shape: its official shape.
    names: its tensors' names, each with the shape it has in the files.
    join: the tensors → the parameter.
    split: the parameter → the tensors.
  """

  path: Path
  shape: tuple[int, ...]
  names: dict[str, tuple[int, ...]]
  join: Callable[..., np.ndarray]
  split: Callable[[np.ndarray], list[np.ndarray]]


def leaves(c: GemmaConfig) -> Iterator[Leaf]:
  """Every parameter of the model."""
  table = (c.vocab_size, c.embed_dim)
  yield _same(
    ("embedder", "input_embedding"), "model.embed_tokens.weight", table
  )
  yield _same(("final_norm", "scale"), "model.norm.weight", (c.embed_dim,))
  for layer in range(c.num_layers):
    yield from _norms(c, layer)
    yield from _attention(c, layer)
    yield from _mlp(c, layer)


def _norms(c, layer):
  for ours, theirs in {
    "pre_attention_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "pre_ffw_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
  }.items():
    name = f"model.layers.{layer}.{theirs}.weight"
    yield _same((f"layer_{layer}", ours, "scale"), name, (c.embed_dim,))


def _attention(c, layer):
  name = f"model.layers.{layer}.self_attn.{{}}_proj.weight".format
  path = lambda leaf: (f"layer_{layer}", "attn", leaf, "w")
  d, h = c.embed_dim, c.head_dim
  q, kv = (c.num_heads * h, d), (c.num_kv_heads * h, d)
  if c.num_heads == c.num_kv_heads:
    yield _heads(path("qkv_einsum"), {name(x): q for x in "qkv"}, h)
  else:
    yield _heads(path("q_einsum"), {name("q"): q}, h, stacked=False)
    yield _heads(path("kv_einsum"), {name("k"): kv, name("v"): kv}, h)
  yield Leaf(
    path("attn_vec_einsum"),
    (c.num_heads, h, d),
    {name("o"): (d, c.num_heads * h)},
    lambda o: o.T.reshape(c.num_heads, h, d),
    lambda w: [w.reshape(-1, d).T],
  )


def _heads(path, names, head_dim, stacked=True):
  """Projections onto heads: tensors [N·H, D] ⇄ w [len(names), N, D, H]."""
  rows, d = next(iter(names.values()))
  heads = rows // head_dim
  front = (len(names),) if stacked else ()

  def join(*tensors):
    each = [x.reshape(heads, head_dim, d).transpose(0, 2, 1) for x in tensors]
    return np.stack(each).reshape(*front, heads, d, head_dim)

  def split(w):
    each = w.reshape(len(names), heads, d, head_dim).transpose(0, 1, 3, 2)
    return [x.reshape(rows, d) for x in each]

  return Leaf(path, (*front, heads, d, head_dim), names, join, split)


def _mlp(c, layer):
  name = f"model.layers.{layer}.mlp.{{}}_proj.weight".format
  wide = (c.hidden_dim, c.embed_dim)
  turn = (0, 1, 2) if c.transpose_gating else (0, 2, 1)
  yield Leaf(
    (f"layer_{layer}", "mlp", "gating_einsum"),
    (2, *wide) if c.transpose_gating else (2, *wide[::-1]),
    {name("gate"): wide, name("up"): wide},
    lambda gate, up: np.stack([gate, up]).transpose(turn),
    lambda w: list(w.transpose(turn)),
  )
  yield Leaf(
    (f"layer_{layer}", "mlp", "linear"),
    wide,
    {name("down"): wide[::-1]},
    lambda down: down.T,
    lambda w: [w.T],
  )


def _same(path: Path, name: str, shape: tuple[int, ...]) -> Leaf:
  return Leaf(path, shape, {name: shape}, lambda x: x, lambda w: [w])


# Our field → theirs, for everything that is copied as it is.
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


# What every Gemma 2 has in common; the code knows nothing else.
_FIXED = {
  "hidden_activation": "gelu_pytorch_tanh",
  "attention_bias": False,
  "tie_word_embeddings": True,
}


def config_from_json(data: object, where: str) -> GemmaConfig:
  """`config.json` → GemmaConfig; UserError names what is wrong with it.

  The files have one layout of the gating weights for all sizes, so the config
  has `transpose_gating` even for the 2B, whose official weights do not.
  """
  kind = data.get("model_type") if isinstance(data, dict) else None
  if kind != "gemma2":
    raise UserError(f"{where} is a {kind!r} model; only 'gemma2' loads.")
  missing = [x for x in _FIELDS.values() if x not in data]
  if missing:
    raise UserError(f"{where} lacks {', '.join(missing)}.")
  for name, value in _FIXED.items():
    if data.get(name, value) != value:
      raise UserError(f"{name} in {where} is {data[name]!r}, not {value!r}.")
  fields = {ours: data[theirs] for ours, theirs in _FIELDS.items()}
  fields["rope_base"] = _rope_base(data)
  for field in dataclasses.fields(GemmaConfig):
    if field.name in fields:
      _check_number(field, fields[field.name], where)
  return GemmaConfig(**fields)


def _rope_base(data: dict):
  """Newer files nest it; 10,000 is the format's own default."""
  nested = data.get("rope_parameters")
  nested = nested if isinstance(nested, dict) else {}
  return data.get("rope_theta", nested.get("rope_theta", 10_000.0))


def _check_number(field: dataclasses.Field, value, where: str) -> None:
  number = float in (field.type, *typing.get_args(field.type))
  kinds = (int, float) if number else (int,)
  if type(value) not in kinds or not 0 < value < math.inf:
    name = _FIELDS.get(field.name, "rope_theta")
    what = "number" if number else "whole number"
    raise UserError(f"{name} in {where} is {value!r}, not a positive {what}.")


def config_to_json(config: GemmaConfig, bos: int, eos: int, pad: int) -> dict:
  """GemmaConfig → what Hugging Face's Gemma2Config reads."""
  fields = {theirs: getattr(config, ours) for ours, theirs in _FIELDS.items()}
  return {
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    **fields,
    "rope_theta": config.rope_base,
    **_FIXED,
    "layer_types": [
      "sliding_attention" if config.is_local(layer) else "full_attention"
      for layer in range(config.num_layers)
    ],
    "bos_token_id": bos,
    "eos_token_id": eos,
    "pad_token_id": pad,
  }
