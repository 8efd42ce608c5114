"""How the language model's weights lie on a ('data', 'model') mesh.

Tensor parallelism: heads, MLP and vocabulary are split over `model`; norms
are copied everywhere, and so is everything over `data`.
"""

from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxsae.errors import UserError
from jaxsae.lm.config import GemmaConfig

P = PartitionSpec


def spec(path: tuple[str, ...], config: GemmaConfig) -> PartitionSpec:
  """The spec of one parameter by its path in the official tree."""
  for name, partition in _specs(config).items():
    if name in path:
      return partition
  return P()


def _specs(config):
  gating = (None, "model", None)  # [2, F, D]
  if not config.transpose_gating:
    gating = (None, None, "model")  # [2, D, F]
  return {
    "input_embedding": P("model", None),  # [V, D]
    "q_einsum": P("model", None, None),  # [N, D, H]
    "kv_einsum": P(None, "model", None, None),  # [2, K, D, H]
    "qkv_einsum": P(None, "model", None, None),  # [3, N, D, H]
    "attn_vec_einsum": P("model", None, None),  # [N, H, D]
    "gating_einsum": P(*gating),
    "linear": P("model", None),  # [F, D]
  }


def check_divides(config: GemmaConfig, model: int) -> None:
  """Raises UserError unless `model` devices can share every split axis."""
  for what in ("num_kv_heads", "num_heads", "hidden_dim", "vocab_size"):
    size = getattr(config, what)
    if size % model:
      works = [n for n in range(1, size + 1) if _all_divide(config, n)]
      raise UserError(
        f"--mesh.model={model} does not divide the language model's"
        f" {what}={size}; use {' or '.join(map(str, works))}."
      )


def _all_divide(config, n):
  sizes = (config.num_kv_heads, config.hidden_dim, config.vocab_size)
  return all(size % n == 0 for size in sizes)


def sharding(
  mesh: Mesh, path: tuple[str, ...], config: GemmaConfig
) -> NamedSharding:
  """The sharding of one parameter on the mesh."""
  return NamedSharding(mesh, spec(path, config))
