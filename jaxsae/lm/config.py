"""The sizes of Gemma 2, one frozen dataclass each."""

import dataclasses

from jaxsae.errors import UserError


@dataclasses.dataclass(frozen=True)
class GemmaConfig:
  """Everything that fixes the shape and arithmetic of one Gemma 2."""

  vocab_size: int
  num_layers: int
  embed_dim: int
  hidden_dim: int  # of the gated MLP
  num_heads: int
  num_kv_heads: int
  head_dim: int
  query_pre_attn_scalar: int  # queries are divided by its square root
  window: int = 4096  # of the local layers, in tokens
  context: int = 8192  # longest sequence the model was trained on
  attn_softcap: float = 50.0
  final_softcap: float = 30.0
  rope_base: float = 10_000.0
  norm_eps: float = 1e-6
  transpose_gating: bool = True  # layout of the gating weights: [2, F, D]

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
    """Multiplies the queries, after RoPE."""
    return self.query_pre_attn_scalar**-0.5

  def is_local(self, layer: int) -> bool:
    """Local and global attention alternate; the first layer is local."""
    return layer % 2 == 0


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
