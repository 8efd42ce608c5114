"""Names and shapes of the tensors of Gemma 2 and 3 in Hugging Face's files.

Each official parameter is one or several Hugging Face tensors, reshaped. A
`Leaf` says which, and how to convert both ways, so reading and writing share
one table.

Shapes: N heads, K key/value heads, D embed_dim, H head_dim, F hidden_dim.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from jaxsae.lm.config import GemmaConfig
from jaxsae.lm.sharding import Path


@dataclasses.dataclass(frozen=True)
class Leaf:
  """One official parameter and the tensors it is made of.

  Attributes:
    path: its path in the official tree.
    shape: its official shape.
    names: name of each tensor → its shape in the files.
    join: makes the parameter of the tensors.
    split: makes the tensors of the parameter.
  """

  path: Path
  shape: tuple[int, ...]
  names: dict[str, tuple[int, ...]]
  join: Callable[..., np.ndarray]
  split: Callable[[np.ndarray], list[np.ndarray]]


def leaves(c: GemmaConfig) -> Iterator[Leaf]:
  """Yields every parameter of the model."""
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
  if c.qk_norm:
    norm = f"model.layers.{layer}.self_attn.{{}}_norm.weight".format
    for ours, theirs in (("_query_norm", "q"), ("_key_norm", "k")):
      yield _same((f"layer_{layer}", "attn", ours, "scale"), norm(theirs), (h,))


def _heads(path, names, head_dim, stacked=True):
  """Projections onto heads: tensors [N·H, D] ⇄ w [len(names), N, D, H]."""
  width, d = next(iter(names.values()))
  heads = width // head_dim
  front = (len(names),) if stacked else ()

  def join(*tensors):
    each = [x.reshape(heads, head_dim, d).transpose(0, 2, 1) for x in tensors]
    return np.stack(each).reshape(*front, heads, d, head_dim)

  def split(w):
    each = w.reshape(len(names), heads, d, head_dim).transpose(0, 1, 3, 2)
    return [x.reshape(width, d) for x in each]

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


# Prefixes of the language model's weights: as published, alone and in a
# multimodal model; as transformers 5 saves the latter; and of both without the
# head, as `AutoModel` saves them.
_PREFIXES = (
  "language_model.model.",
  "model.language_model.",
  "language_model.",
  "model.",
  "",
)
_PARTS = ("embed_tokens.", "layers.", "norm.")
# Its other weights, which are not read.
_OTHERS = ("vision_tower.", "multi_modal_projector.")
_HEADS = ("lm_head.weight", "language_model.lm_head.weight")
# What torch and PEFT put into names while they wrap a model.
_WRAPPERS = re.compile(
  r"\b(base_model\.model|module|_orig_mod|_fsdp_wrapped_module"
  r"|_checkpoint_wrapped_module)\."
)

_EMBEDDING = re.compile(r"(.*?)(model\.)?embed_tokens\.weight")


def plain_name(name: str) -> str | None:
  """Returns a tensor's name as in `leaves`; None if it is not read.

  Not read are the vision parts of Gemma 3, and `lm_head`, a copy of the tied
  embedding. A name that is not known stays as it is.
  """
  bare = _WRAPPERS.sub("", name)
  if bare in _HEADS or bare.removeprefix("model.").startswith(_OTHERS):
    return None
  for prefix in _PREFIXES:
    rest = bare.removeprefix(prefix)
    if bare.startswith(prefix) and rest.startswith(_PARTS):
      return "model." + rest
  return name


def unknown_prefix(names: Iterable[str]) -> str:
  """Returns what precedes the names of a model in another one; "" if nothing.

  Args:
    names: those of all tensors, plain where they are known.
  """
  found = (_EMBEDDING.fullmatch(name) for name in names)
  return next((match[1] for match in found if match and match[1]), "")
