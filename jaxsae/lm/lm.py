"""A language model as one value: weights, configuration, tokenizer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax.core import Tracer
from jax.sharding import Mesh
from jax.typing import ArrayLike

from jaxsae.brief import brief
from jaxsae.errors import UserError, did_you_mean
from jaxsae.lm.arguments import as_packing, as_tokens
from jaxsae.lm.attention import Packing
from jaxsae.lm.config import GemmaConfig
from jaxsae.lm.gemma import Gemma, Tap, pass_through
from jaxsae.lm.sharding import gathered_over_data
from jaxsae.lm.sites import Place, Taps
from jaxsae.lm.tokenizer import Tokenizer

# The norm whose output is the activation of a site.
_NORMS = {"mlp_in": "pre_ffw_norm", "mlp": "post_ffw_norm"}


class Unembedding(NamedTuple):
  """The last, linear part of the model, in the dtype of the weights.

  The logits of a normed stream n [D] are table @ (gain ⊙ n), up to a soft cap.
  """

  table: jax.Array  # [V, D]
  gain: jax.Array  # [D], of the final norm


class Lm(struct.PyTreeNode):
  """A pytree of weights that also knows its configuration and tokenizer.

  Attributes:
    params: the parameters, named and nested as in the official library.
    config: the sizes of the model.
    tokenizer: text ⇄ token ids, or None if the weights came without one.
    name: the name or path that it was loaded from.
    mesh: the mesh that shards the parameters, or None on one device.
    excluded: ids of tokens that do not count as text, besides BOS and EOS.
    ends: ids of tokens that end a turn, as the files of the weights say.
  """

  params: Any
  config: GemmaConfig = struct.field(pytree_node=False)
  tokenizer: Tokenizer | None = struct.field(pytree_node=False, default=None)
  name: str = struct.field(pytree_node=False, default="")
  mesh: Mesh | None = struct.field(pytree_node=False, default=None)
  excluded: tuple[int, ...] = struct.field(pytree_node=False, default=())
  ends: tuple[int, ...] = struct.field(pytree_node=False, default=())

  def __repr__(self) -> str:
    """Names the model, its sizes, its dtype and its mesh, in one line."""
    leaves, sizes = jax.tree.leaves(self.params), self.config
    count = sum(getattr(x, "size", 0) for x in leaves)
    dtypes = sorted({str(x.dtype) for x in leaves if hasattr(x, "dtype")})
    mesh = (
      "one device" if self.mesh is None else f"mesh {dict(self.mesh.shape)}"
    )
    return (
      f"Lm({self.name!r}, {sizes.num_layers} layers, width {sizes.embed_dim},"
      f" {sizes.vocab_size} tokens, {count:,} parameters in"
      f" {' and '.join(dtypes) or 'no dtype'}, {mesh})"
    )

  def excluding(self, tokens: Sequence[str | int]) -> "Lm":
    """Returns the model with more tokens that do not count as text.

    Args:
      tokens: the text of each, as in `<start_of_turn>`, or its id, as in `106`.

    Raises:
      UserError: the vocabulary does not have one of them.
    """
    if isinstance(tokens, str | int):
      tokens = (tokens,)
    found = tuple(self._id_of(str(token)) for token in tokens)
    return self.replace(excluded=tuple(sorted({*self.excluded, *found})))

  def _id_of(self, token: str) -> int:
    pieces = self.tokenizer.pieces if self.tokenizer is not None else []
    if token in pieces:
      return pieces.index(token)
    if token.isdecimal() and int(token) < self.config.vocab_size:
      return int(token)
    guess = did_you_mean(token, pieces) or "give a token's text or number."
    raise UserError(
      f"{token!r} is not a token of {self._display_name}; {guess}"
    )

  def logits(
    self,
    tokens: ArrayLike,
    segments: ArrayLike | None = None,
    positions: ArrayLike | None = None,
  ) -> jax.Array:
    """Returns next-token logits [B, T, V] in float32 for tokens int [B, T].

    Lists of rows and NumPy arrays are tokens too. Tokens outside of the
    vocabulary are told, but not inside `jit`; see `check_ids`.
    """
    return self.apply(tokens, segments, positions)

  def apply(
    self,
    tokens: ArrayLike,
    segments: ArrayLike | None = None,
    positions: ArrayLike | None = None,
    tap: Tap = pass_through,
    num_blocks: int | None = None,
  ) -> jax.Array:
    """Returns logits [B, T, V], or [B, T, D] after `num_blocks` blocks.

    By default each row of tokens is one document.

    Raises:
      UserError: the tokens are not int [B, T], a row is longer than the
        model's context, or a token is not in its vocabulary (checked only
        outside of `jit`).
    """
    rows = self.as_rows(tokens)
    if segments is None:
      segments = jnp.ones_like(rows)
    if positions is None:
      positions = jnp.broadcast_to(jnp.arange(rows.shape[1]), rows.shape)
    packing = Packing(
      as_packing(segments, rows, "Segments"),
      as_packing(positions, rows, "Positions"),
    )
    model = Gemma(self.config, self.mesh)
    method = Gemma.__call__ if num_blocks is None else Gemma.stream
    return nn.apply(method, model)(
      {"params": self.params},
      rows,
      packing,
      tap=tap,
      num_blocks=num_blocks,
    )

  def unembed(self, stream: jax.Array) -> jax.Array:
    """Maps the residual stream [B, T, D] to logits [B, T, V] in float32."""
    model = Gemma(self.config, self.mesh)
    return nn.apply(Gemma.unembed, model)({"params": self.params}, stream)

  def with_gathered_embedding(self) -> "Lm":
    """Returns a model whose embedding is split over `model` alone; traced.

    With FSDP it is split over `data` too, and a loop over tokens would gather
    it again in every turn.
    """
    if self.mesh is None:
      return self
    embedder = gathered_over_data(self.params["embedder"], self.mesh)
    return self.replace(params={**self.params, "embedder": embedder})

  def as_rows(self, tokens: ArrayLike) -> Any:
    """Returns token ids as an array int [B, T] that the model takes.

    Raises:
      UserError: as in `apply`.
    """
    rows = as_tokens(tokens)
    self.check_length(rows.shape[1])
    self.check_ids(rows)
    return rows.astype(np.int32) if isinstance(rows, np.ndarray) else rows

  def check_length(self, length: int) -> None:
    """Raises UserError if rows of `length` tokens exceed the context."""
    if length > self.config.context:
      raise UserError(
        f"Rows of {length} tokens are longer than the context of"
        f" {self._display_name}, {self.config.context}; use at most that many."
      )

  def check_ids(self, tokens: ArrayLike) -> None:
    """Raises UserError if a token is not in the vocabulary.

    Nothing is checked inside `jit`, or where other hosts hold some tokens:
    there JAX takes the last token in place of one beyond the vocabulary, and
    counts negative ones from its end. Call this before `jit`.
    """
    if not _is_concrete(tokens):
      return
    size, ids = self.config.vocab_size, np.asarray(tokens)
    least, most = ids.min(initial=0), ids.max(initial=0)
    if least < 0 or most >= size:
      raise UserError(
        f"Token {least if least < 0 else most} is not in the vocabulary of"
        f" {self._display_name}, 0 to {size - 1}; use its own tokenizer."
      )

  @property
  def _display_name(self) -> str:
    return self.name or "the language model"

  def text_mask(self, tokens: jax.Array, segments: jax.Array) -> jax.Array:
    """Returns [B, T]: 1.0 for text tokens, 0.0 for padding and special ones.

    Special are BOS, EOS and the tokens that are excluded.
    """
    mask = segments > 0
    if self.tokenizer is not None:
      mask &= tokens != self.tokenizer.bos
      if self.tokenizer.eos is not None:
        mask &= tokens != self.tokenizer.eos
    for token in self.excluded:
      mask &= tokens != token
    return mask.astype(jnp.float32)

  def unembedding(self) -> Unembedding:
    """Returns the table and the gain that turn the stream into logits."""
    table = self.params["embedder"]["input_embedding"]
    return Unembedding(table, _gain(self.params["final_norm"]))

  def norm_gain(self, place: Place) -> np.ndarray:
    """Returns the gain, float32 [D], of the norm that ends at a site.

    Raises:
      UserError: the model lacks the site, or no norm ends there.
    """
    site = Taps.of(place).site
    site.check(self.config)
    if site.where not in _NORMS:
      raise UserError(
        f"No norm ends at {site}; ask for the gain at {' or '.join(_NORMS)}."
      )
    norm = self.params[f"layer_{site.layer}"][_NORMS[site.where]]
    return 1 + np.asarray(norm["scale"], np.float32)

  def to_stream(self, place: Place, directions: jax.Array) -> jax.Array:
    """Maps directions [F, D] to what they add to the residual stream, [F, M].

    Those of `resid` and `mlp` lie in the stream. Those of `attn` go through the
    layer's W_O and the gain of the norm after it, without the norm's division.

    Raises:
      UserError: the model lacks the site, or the site is `mlp_in`, which only
        the MLP reads.
    """
    site = Taps.of(place).site
    site.check(self.config)
    if site.where == "mlp_in":
      raise UserError(
        f"Directions at {site} are not written to the residual stream, because"
        f" only the MLP reads them; use mlp.{site.layer}."
      )
    if site.where != "attn":
      return directions
    layer = self.params[f"layer_{site.layer}"]
    out = layer["attn"]["attn_vec_einsum"]["w"]
    out = out.reshape(-1, out.shape[-1])
    written = jnp.matmul(directions, out, precision="highest")
    return written * _gain(layer["post_attention_norm"])[None]


def check_lm(lm: Any) -> None:
  """Raises UserError if something else stands in place of a language model."""
  if not isinstance(lm, Lm):
    raise UserError(
      f"{brief(lm)} is not a language model; give what load_lm() returns, as in"
      " load_lm('gemma2-tiny')."
    )


def _gain(norm) -> jax.Array:
  return 1 + norm["scale"]


def _is_concrete(x) -> bool:
  """Returns whether this process can read every value of x now."""
  if isinstance(x, jax.Array) and not isinstance(x, Tracer):
    return x.is_fully_addressable
  return not isinstance(x, Tracer)
