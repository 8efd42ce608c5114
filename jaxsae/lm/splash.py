"""Attention on TPU: JAX's fused kernel, on each device's rows and heads.

The kernel never forms the [T, T] matrix of logits. It masks by column, which
is the same as masking by position because a segment's tokens are adjacent.
"""

from collections.abc import Callable

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

LANES = 128  # lanes of the vector unit; block sizes are multiples
BLOCKS = (512, 256, 128)  # block sizes; the first that divides T is used


def fits(time: int, head_dim: int) -> bool:
  """Returns whether the kernel supports this row length and head size."""
  return time % LANES == 0 and head_dim % LANES == 0


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array,
  *,
  window: int | None,
  softcap: float | None,
  mesh: Mesh | None = None,
  interpret: bool = False,
) -> jax.Array:
  """Computes `attention.attend` for rows that attend to themselves.

  Args:
    q: [B, T, N, H], scaled; T and H are multiples of 128.
    k: [B, T, K, H].
    v: [B, T, K, H].
    segments: int [B, T].
    window: number of tokens that a query sees, itself included; None: all.
    softcap: squashes the logits into (-softcap, softcap); None: no cap.
    mesh: the mesh that splits rows and heads; None: one device.
    interpret: run the kernel's steps one by one, on any device.

  Returns:
    [B, T, N, H]
  """
  block = next(size for size in BLOCKS if q.shape[1] % size == 0)

  def on_one_device(q, k, v, segments):
    kernel = _kernel(q.shape, block, window, softcap, interpret)
    swap = lambda x: x.swapaxes(1, 2)  # the kernel wants [N, T, H]
    return swap(jax.vmap(kernel)(swap(q), swap(k), swap(v), segments))

  if mesh is not None:  # the compiler cannot split a kernel by itself
    on_one_device = _on_each(mesh, q.shape[0], k.shape[2], on_one_device)
  return on_one_device(q, k, v, segments)


def _kernel(shape, block, window, softcap, interpret):
  """Makes the kernel: q [N, T, H], k, v [K, T, H], segments [T] → [N, T, H]."""
  # Pallas is slow to import, and needed on TPUs only.
  from jax.experimental.pallas.ops.tpu import splash_attention as kernels

  _, time, heads, _ = shape
  if window is None:
    mask = kernels.CausalMask((time, time))
  else:
    mask = kernels.LocalMask((time, time), (window - 1, 0), offset=0)
  kernel = kernels.make_splash_mha(
    kernels.MultiHeadMask([mask] * heads),
    block_sizes=kernels.BlockSizes(
      block_q=block,
      block_kv=block,
      block_q_dkv=block,
      block_kv_dkv=block,
      block_q_dq=block,
      block_kv_dq=block,
    ),
    head_shards=1,
    q_seq_shards=1,
    attn_logits_soft_cap=softcap,
    interpret=interpret,
  )
  return lambda q, k, v, ids: kernel(q, k, v, kernels.SegmentIds(ids, ids))


def _on_each(
  mesh: Mesh, rows: int, key_heads: int, function: Callable
) -> Callable:
  """Runs the function on each device's rows and heads."""
  batch = "data" if rows % mesh.shape["data"] == 0 else None
  heads = P(batch, None, "model", None)
  keys = heads if key_heads > 1 else P(batch, None, None, None)
  return jax.shard_map(
    function,
    mesh=mesh,
    in_specs=(heads, keys, keys, P(batch, None)),
    out_specs=heads,
    check_vma=False,  # pallas does not say which axes its output varies over
  )
