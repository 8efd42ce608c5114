"""The sizes of Gemma 2 and Gemma 3, one frozen dataclass each.

The numbers are those of the official library (google-deepmind/gemma).
"""

import dataclasses
from typing import Protocol

from jaxsae.errors import UserError


class LmConfig(Protocol):
  """The sizes that other packages need to know of any language model."""

  @property
  def vocab_size(self) -> int:
    """Number of tokens in the vocabulary."""

  @property
  def num_layers(self) -> int:
    """Number of blocks."""

  @property
  def context(self) -> int:
    """Longest row of tokens that the model takes."""

  def site_width(self, where: str) -> int:
    """Returns the length D of activations at this kind of site."""


@dataclasses.dataclass(frozen=True)
class GemmaConfig:
  """Everything that fixes the shape and arithmetic of one Gemma.

  The defaults are those of Gemma 2; what only Gemma 3 has comes last.
  """

  vocab_size: int
  num_layers: int
  embed_dim: int
  hidden_dim: int  # width of the gated MLP
  num_heads: int
  num_kv_heads: int
  head_dim: int
  query_pre_attn_scalar: int  # queries are divided by its square root
  window: int = 4096  # tokens that local layers see
  context: int = 8192  # longest sequence the model was trained on
  attn_softcap: float | None = 50.0
  final_softcap: float | None = 30.0
  rope_base: float = 10_000.0
  norm_eps: float = 1e-6
  transpose_gating: bool = True  # layout of the gating weights: [2, F, D]
  locals_per_global: int = 1  # local layers before each global one
  qk_norm: bool = False  # queries and keys pass a norm before RoPE
  global_rope_base: float = 10_000.0  # RoPE base of the global layers
  global_rope_scale: float = 1.0  # divides positions in global layers

  def __post_init__(self):
    if self.num_heads % self.num_kv_heads:
      raise UserError(
        f"num_heads={self.num_heads} is not a multiple of"
        f" num_kv_heads={self.num_kv_heads}; grouped attention needs one."
      )
    if self.head_dim % 2:
      raise UserError(
        f"head_dim={self.head_dim} is odd; RoPE rotates pairs, use an even one."
      )

  @property
  def query_scale(self) -> float:
    """Factor that multiplies the queries after RoPE."""
    return self.query_pre_attn_scalar**-0.5

  def site_width(self, where: str) -> int:
    """Returns the length D of activations at `resid`, `attn` and so on.

    Of a pair, such as `transcoder`, it is that of the output.
    """
    if where == "attn":
      return self.num_heads * self.head_dim
    return self.embed_dim

  def is_local(self, layer: int) -> bool:
    """Returns whether attention in this layer sees only `window` tokens."""
    return (layer + 1) % (self.locals_per_global + 1) != 0


def gemma2_2b() -> GemmaConfig:
  """Gemma 2 2B: 26 layers; the only size that does not transpose gating."""
  return GemmaConfig(
    vocab_size=256_128,
    num_layers=26,
    embed_dim=2304,
    hidden_dim=9216,
    num_heads=8,
    num_kv_heads=4,
    head_dim=256,
    query_pre_attn_scalar=256,
    transpose_gating=False,
  )


def gemma2_9b() -> GemmaConfig:
  """Gemma 2 9B: 42 layers."""
  return GemmaConfig(
    vocab_size=256_128,
    num_layers=42,
    embed_dim=3584,
    hidden_dim=14_336,
    num_heads=16,
    num_kv_heads=8,
    head_dim=256,
    query_pre_attn_scalar=256,
  )


def gemma2_27b() -> GemmaConfig:
  """Gemma 2 27B: 46 layers; queries scale by embed_dim / num_heads."""
  return GemmaConfig(
    vocab_size=256_128,
    num_layers=46,
    embed_dim=4608,
    hidden_dim=36_864,
    num_heads=32,
    num_kv_heads=16,
    head_dim=128,
    query_pre_attn_scalar=4608 // 32,
  )


def gemma2_tiny() -> GemmaConfig:
  """The model this project trained itself (experiments/pretrain_tiny.py)."""
  return GemmaConfig(
    vocab_size=4096,
    num_layers=6,
    embed_dim=128,
    hidden_dim=768,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    query_pre_attn_scalar=32,
    window=64,
    context=256,
  )


def gemma3_270m() -> GemmaConfig:
  """Gemma 3 270M: 18 layers, text only."""
  return _gemma3(
    num_layers=18,
    embed_dim=640,
    hidden_dim=2048,
    num_heads=4,
    num_kv_heads=1,
    window=512,
    context=32_768,
  )


def gemma3_1b() -> GemmaConfig:
  """Gemma 3 1B: 26 layers, text only."""
  return _gemma3(
    num_layers=26,
    embed_dim=1152,
    hidden_dim=6912,
    num_heads=4,
    num_kv_heads=1,
    window=512,
    context=32_768,
  )


def gemma3_4b() -> GemmaConfig:
  """The text tower of Gemma 3 4B: 34 layers."""
  return _gemma3(
    num_layers=34,
    embed_dim=2560,
    hidden_dim=10_240,
    num_heads=8,
    num_kv_heads=4,
    global_rope_scale=8.0,
  )


def gemma3_12b() -> GemmaConfig:
  """The text tower of Gemma 3 12B: 48 layers."""
  return _gemma3(
    num_layers=48,
    embed_dim=3840,
    hidden_dim=15_360,
    num_heads=16,
    num_kv_heads=8,
    global_rope_scale=8.0,
  )


def gemma3_27b() -> GemmaConfig:
  """The text tower of Gemma 3 27B; queries scale by embed_dim / num_heads."""
  return _gemma3(
    num_layers=62,
    embed_dim=5376,
    hidden_dim=21_504,
    num_heads=32,
    num_kv_heads=16,
    head_dim=128,
    query_pre_attn_scalar=5376 // 32,
    global_rope_scale=8.0,
  )


def _gemma3(**sizes) -> GemmaConfig:
  """Makes a config from what all Gemma 3 share and the given sizes."""
  shared = {
    "vocab_size": 262_144,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "window": 1024,
    "context": 131_072,
    "attn_softcap": None,
    "final_softcap": None,
    "locals_per_global": 5,
    "qk_norm": True,
    "global_rope_base": 1_000_000.0,
  }
  return GemmaConfig(**shared | sizes)


# Every published size by its name, as in `gemma2-9b`.
PUBLISHED = {
  "gemma2-2b": gemma2_2b,
  "gemma2-9b": gemma2_9b,
  "gemma2-27b": gemma2_27b,
  "gemma3-270m": gemma3_270m,
  "gemma3-1b": gemma3_1b,
  "gemma3-4b": gemma3_4b,
  "gemma3-12b": gemma3_12b,
  "gemma3-27b": gemma3_27b,
}
