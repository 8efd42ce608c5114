"""Sharding of the language model over a ('data', 'model') mesh.

Tensor parallelism: heads, MLP and vocabulary are split over `model`. With
`fsdp` the other large axis, the residual stream's, is split over `data` as
well, and each layer's weights are gathered when it runs. Norms are replicated.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import (
  Mesh,
  NamedSharding,
  PartitionSpec,
  Sharding,
  SingleDeviceSharding,
)

from jaxsae.errors import UserError
from jaxsae.lm.config import GemmaConfig

Path = tuple[str, ...]  # path of a leaf in the official parameter tree

# The axes of each parameter: V vocabulary, D embed_dim, N query heads, K
# key/value heads, H head_dim, F hidden_dim, S a stack of two or three.
_AXES = {
  "input_embedding": "VD",
  "q_einsum": "NDH",
  "kv_einsum": "SKDH",
  "qkv_einsum": "SNDH",
  "attn_vec_einsum": "NHD",
  "linear": "FD",
}
_SIZES = {
  "N": "num_heads",
  "K": "num_kv_heads",
  "F": "hidden_dim",
  "V": "vocab_size",
}


def spec(path: Path, config: GemmaConfig, fsdp: bool = False) -> PartitionSpec:
  """Returns the spec of the parameter at a path of the official tree."""
  gating = "SFD" if config.transpose_gating else "SDF"
  for name, axes in (_AXES | {"gating_einsum": gating}).items():
    if name in path:
      return PartitionSpec(*(_over(axis, config, fsdp) for axis in axes))
  return PartitionSpec()


def _over(axis: str, config: GemmaConfig, fsdp: bool) -> str | None:
  """Returns the mesh axis that splits an axis of a parameter, or None."""
  if axis == "D" and fsdp:
    return "data"
  return "model" if axis in _split(config) else None


def _split(config: GemmaConfig) -> str:
  """Returns the axes split over `model`; a single key head is replicated."""
  return "NFV" if config.num_kv_heads == 1 else "NKFV"


def placement(
  config: GemmaConfig, mesh: Mesh | None, fsdp: bool = False
) -> Callable[[Path], Sharding]:
  """Makes the function from a parameter's path to its sharding.

  Without a mesh, that is always the first device.

  Raises:
    UserError: the mesh does not divide the model; names sizes that would.
  """
  if mesh is None:
    device = SingleDeviceSharding(jax.devices()[0])
    return lambda path: device
  check_divides(config, mesh, fsdp)
  return lambda path: NamedSharding(mesh, spec(path, config, fsdp))


def check_divides(config: GemmaConfig, mesh: Mesh, fsdp: bool = False) -> None:
  """Raises UserError unless the mesh divides every split axis."""
  for axis in _split(config):
    what = _SIZES[axis]
    sizes = [getattr(config, _SIZES[axis]) for axis in _split(config)]
    if getattr(config, what) % mesh.shape["model"]:
      _refuse("model", what, getattr(config, what), mesh, sizes)
  if fsdp and config.embed_dim % mesh.shape["data"]:
    _refuse("data", "embed_dim", config.embed_dim, mesh, [config.embed_dim])


def _refuse(axis, what, size, mesh, sizes):
  works = [
    str(n)
    for n in range(1, min(sizes) + 1)
    if all(size % n == 0 for size in sizes)
  ]
  raise UserError(
    f"--mesh.{axis}={mesh.shape[axis]} does not divide the language model's"
    f" {what}={size}; use {' or '.join(works[:8])}."
  )


def rows_on_device(rows: int, mesh: Mesh | None) -> int:
  """Returns the number of rows that one device holds of a batch."""
  if mesh is None or rows % mesh.shape["data"]:
    return rows
  return rows // mesh.shape["data"]


def keep_rows_over_data(x: jax.Array, mesh: Mesh | None) -> jax.Array:
  """Constrains x [B, T, D] to be split by rows over `data` and no further.

  Otherwise it may split D where the weights are, and move activations where
  it should move weights.
  """
  if mesh is None or x.shape[0] % mesh.shape["data"]:
    return x
  where = NamedSharding(mesh, PartitionSpec("data", None, None))
  return jax.lax.with_sharding_constraint(x, where)


def gathered_over_data(embedder: Any, mesh: Mesh) -> Any:
  """Constrains the embedder's table [V, D] to be split over `model` alone."""
  where = NamedSharding(mesh, PartitionSpec("model", None))
  hold = lambda x: jax.lax.with_sharding_constraint(x, where)
  return jax.tree.map(hold, embedder)
