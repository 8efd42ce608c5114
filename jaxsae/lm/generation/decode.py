"""Decoding with a cache: the prompts at once, then token by token.

Keys and values of past tokens stay in a cache of S columns. Prompts are padded
on the left, so that the next token of every row goes into the same column.
Padding is a segment of its own, and positions count from each row's first
token, so neither padding nor other rows change a token's activations.

Shapes: B rows, T tokens of a padded prompt, S columns of the cache, K key
heads, H head_dim, V vocabulary.
"""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxsae.errors import UserError
from jaxsae.lm.attention import Packing
from jaxsae.lm.config import GemmaConfig
from jaxsae.lm.edits import Edits, is_pytree
from jaxsae.lm.forward import make_tap
from jaxsae.lm.gemma import CacheColumns, Gemma
from jaxsae.lm.generation.prompts import Batch
from jaxsae.lm.generation.sampling import NONE, Sampling, choose
from jaxsae.lm.lm import Lm
from jaxsae.lm.made import refuse_broken
from jaxsae.mesh import shard


def decode(
  lm: Lm,
  batch: Batch,
  edits: Edits,
  sampling: Sampling | None,
  max_tokens: int,
) -> Iterator[np.ndarray]:
  """Yields the next token of every row, int32 [B], `max_tokens` times.

  Raises:
    UserError: logits are not finite; names the edit that made NaN or infinity.
  """
  prefill, step, edits = _compiled_for(edits)
  model = Gemma(lm.config, lm.mesh)
  tokens, padding, time = batch.tokens, batch.padding, batch.tokens.shape[1]
  logits, cache, broken = prefill(
    lm.params, tokens, padding, edits, model=model, size=batch.columns
  )
  for i in range(max_tokens):
    new = _choose(logits, sampling, np.int32(i), mesh=lm.mesh)
    if i + 1 < max_tokens:
      # Runs while the caller handles the tokens before it.
      start = np.int32(time + i)
      logits, cache, broken = step(
        lm.params, cache, new, padding, start, broken, edits, model=model
      )
    yield _checked(np.asarray(new), broken, lm)


def _checked(new: np.ndarray, broken, lm: Lm) -> np.ndarray:
  """Returns tokens; raises UserError if `_choose` found no finite logits."""
  if (new == NONE).any():
    refuse_broken(broken)
    raise UserError(
      f"The logits of {lm.name or 'the language model'} are not finite (NaN or"
      " infinity): its weights are damaged, or an edit is too strong for their"
      " dtype; load the model again, or with dtype=jax.numpy.float32."
    )
  return new


def _compiled_for(edits):
  """Returns prefill, step, and the edits that are arguments of both.

  The other edits, plain functions, are compiled anew for each call.
  """
  pytrees = {site: edit for site, edit in edits.items() if is_pytree(edit)}
  plain = {site: edit for site, edit in edits.items() if site not in pytrees}
  return *(_compile(plain) if plain else _SHARED), pytrees


def _compile(plain: Edits) -> tuple[Callable, Callable]:
  """Makes prefill and step with the plain edits built in."""
  # `jit` caches by function, so new functions compile anew.
  prefill = functools.partial(_prefill, plain)
  step = functools.partial(_step, plain)
  return (
    jax.jit(prefill, static_argnames=("model", "size")),
    jax.jit(step, static_argnames="model", donate_argnames="cache"),
  )


def _prefill(plain, params, tokens, padding, edits, *, model, size):
  """Reads the prompts.

  Returns:
    Next-token logits [B, V], the cache, and {site: whether its edit made NaN}.
  """
  columns = np.arange(tokens.shape[1])
  packing = _packing(padding, columns)
  # While the prompts run, the cache is as long as they are, so that attention
  # knows that there are no other columns.
  cache = _empty_cache(params, model.config, *tokens.shape)
  cache_columns = CacheColumns(packing, np.int32(0))
  logits, cache, broken = _forward(
    model, params, cache, tokens, packing, cache_columns, plain | edits
  )
  grow = [(0, 0), (0, size - len(columns)), (0, 0), (0, 0)]
  cache = jax.tree.map(lambda x: jnp.pad(x, grow), cache)
  return logits, _keep_cache(cache, model), broken


def _step(
  plain, params, cache, tokens, padding, start, broken, edits, *, model
):
  """Reads one more token [B] of each row into column `start`."""
  size = jax.tree.leaves(cache)[0].shape[1]
  packing = _packing(padding, start[None])
  cache_columns = CacheColumns(_packing(padding, np.arange(size)), start)
  logits, cache, now = _forward(
    model, params, cache, tokens[:, None], packing, cache_columns, plain | edits
  )
  broken = {site: broken[site] | now[site] for site in now}
  return logits, _keep_cache(cache, model), broken


def _packing(padding, columns) -> Packing:
  """Returns the packing [B, columns] of some columns of the cache.

  Columns that are still empty have later positions, so the mask hides them.
  """
  positions = columns[None] - padding[:, None]
  segments = (positions >= 0).astype(jnp.int32)
  return Packing(segments, jnp.maximum(positions, 0))


def _forward(model, params, cache, tokens, packing, columns, edits):
  """Returns logits [B, V] of the last token, the updated cache, and broken."""
  broken = {}
  x, written = model.apply(
    {"params": params, "cache": cache},
    tokens,
    packing,
    tap=make_tap(edits, model.config, broken=broken),
    columns=columns,
    method=model.stream,
    mutable=["cache"],
  )
  last = model.apply({"params": params}, x[:, -1:], method=model.unembed)
  return last[:, 0], written["cache"], broken


def _empty_cache(params, config: GemmaConfig, batch: int, size: int):
  """Makes {layer_i: {attn: {key, value: [B, S, K, H]}}} of zeros."""
  dtype = params["embedder"]["input_embedding"].dtype
  zeros = jnp.zeros((batch, size, config.num_kv_heads, config.head_dim), dtype)
  layer = {"attn": {"key": zeros, "value": zeros}}
  return {f"layer_{i}": layer for i in range(config.num_layers)}


def _keep_cache(cache, model: Gemma):
  """Keeps the cache split by rows over `data` and by heads over `model`."""
  if model.mesh is None:
    return cache
  batch = jax.tree.leaves(cache)[0].shape[0]
  rows = "data" if batch % model.mesh.shape["data"] == 0 else None
  heads = "model" if model.config.num_kv_heads > 1 else None
  where = shard(model.mesh, rows, None, heads, None)
  return jax.lax.with_sharding_constraint(cache, where)


@functools.partial(jax.jit, static_argnames="mesh")
def _choose(logits, sampling, step, *, mesh: Mesh | None):
  """Returns the next tokens [B], replicated on every device and process."""
  new = choose(logits, sampling, step)
  if mesh is None:
    return new
  return jax.lax.with_sharding_constraint(new, shard(mesh))


_SHARED = _compile({})
