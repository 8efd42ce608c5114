"""Forward passes that remember: the prompts at once, then token by token.

Keys and values of past tokens stay in a cache of S columns. Prompts are padded
on the left, so that the next token of every row goes into the same column.
Padding is a segment of its own, and positions count from each row's first
token: no token can tell that it has neighbours or padding.

Shapes: B rows, T tokens of a padded prompt, S columns of the cache, K key
heads, H head_dim, V vocabulary.
"""

import functools
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxsae.lm.attention import Packing
from jaxsae.lm.config import GemmaConfig
from jaxsae.lm.forward import Edit, make_tap
from jaxsae.lm.gemma import CacheColumns, Gemma
from jaxsae.lm.generation.prompts import Batch
from jaxsae.lm.generation.sampling import Sampling, choose
from jaxsae.lm.lm import Lm
from jaxsae.lm.sites import Site
from jaxsae.mesh import shard


def decode(
  lm: Lm,
  batch: Batch,
  edits: Mapping[Site, Edit],
  sampling: Sampling | None,
  max_tokens: int,
) -> Iterator[np.ndarray]:
  """The next tokens of all rows, int32 [B], `max_tokens` times."""
  prefill, step, edits = _compiled_for(edits)
  model = Gemma(lm.config, lm.mesh)
  tokens, padding, time = batch.tokens, batch.padding, batch.tokens.shape[1]
  logits, cache = prefill(
    lm.params, tokens, padding, edits, model=model, size=batch.columns
  )
  for i in range(max_tokens):
    new = _choose(logits, sampling, np.int32(i), mesh=lm.mesh)
    if i + 1 < max_tokens:
      # Under way while the caller looks at the tokens before it.
      start = np.int32(time + i)
      logits, cache = step(
        lm.params, cache, new, padding, start, edits, model=model
      )
    yield np.asarray(new)


def _compiled_for(edits):
  """Prefill and step for these edits, and those edits that are arguments.

  What a plain function does may change between calls, with what it refers to,
  and nothing that was compiled would notice. So with such edits there is
  something new to compile, which is forgotten after the call.
  """
  leaf = lambda edit: jax.tree_util.all_leaves([edit])
  plain = {site: edit for site, edit in edits.items() if leaf(edit)}
  pytrees = {site: edit for site, edit in edits.items() if site not in plain}
  return *(_compile(plain) if plain else _SHARED), pytrees


def _compile(plain: Mapping[Site, Edit]) -> tuple[Callable, Callable]:
  """Prefill and step, with some edits built in."""
  # `jit` remembers what it compiled by function, and these are new.
  prefill = functools.partial(_prefill, plain)
  step = functools.partial(_step, plain)
  return (
    jax.jit(prefill, static_argnames=("model", "size")),
    jax.jit(step, static_argnames="model", donate_argnames="cache"),
  )


def _prefill(plain, params, tokens, padding, edits, *, model, size):
  """Reads the prompts: logits [B, V] of what comes next, and the cache."""
  columns = np.arange(tokens.shape[1])
  packing = _packing(padding, columns)
  # While the prompts run, the cache is as long as they are, so that attention
  # knows that there is nothing else to see.
  cache = _empty_cache(params, model.config, *tokens.shape)
  there = CacheColumns(packing, np.int32(0))
  logits, cache = _forward(
    model, params, cache, tokens, packing, there, plain | edits
  )
  grow = [(0, 0), (0, size - len(columns)), (0, 0), (0, 0)]
  cache = jax.tree.map(lambda x: jnp.pad(x, grow), cache)
  return logits, _keep_cache(cache, model)


def _step(plain, params, cache, tokens, padding, start, edits, *, model):
  """Reads one more token [B] of each row into column `start`."""
  size = jax.tree.leaves(cache)[0].shape[1]
  packing = _packing(padding, start[None])
  there = CacheColumns(_packing(padding, np.arange(size)), start)
  logits, cache = _forward(
    model, params, cache, tokens[:, None], packing, there, plain | edits
  )
  return logits, _keep_cache(cache, model)


def _packing(padding, columns) -> Packing:
  """Where the tokens of some columns belong, [B, columns].

  Columns that are still empty have positions in the future, and are not seen.
  """
  positions = columns[None] - padding[:, None]
  segments = (positions >= 0).astype(jnp.int32)
  return Packing(segments, jnp.maximum(positions, 0))


def _forward(model, params, cache, tokens, packing, columns, edits):
  """Logits [B, V] after the last token, and the cache with the tokens."""
  x, written = model.apply(
    {"params": params, "cache": cache},
    tokens,
    packing,
    tap=make_tap(edits, model.config),
    columns=columns,
    method=model.stream,
    mutable=["cache"],
  )
  last = model.apply({"params": params}, x[:, -1:], method=model.unembed)
  return last[:, 0], written["cache"]


def _empty_cache(params, config: GemmaConfig, batch: int, size: int):
  """{layer_i: {attn: {key, value: [B, S, K, H]}}}, in the weights' dtype."""
  dtype = params["embedder"]["input_embedding"].dtype
  zeros = jnp.zeros((batch, size, config.num_kv_heads, config.head_dim), dtype)
  layer = {"attn": {"key": zeros, "value": zeros}}
  return {f"layer_{i}": layer for i in range(config.num_layers)}


def _keep_cache(cache, model: Gemma):
  """Rows lie over `data`, heads over `model`, where there is more than one."""
  if model.mesh is None:
    return cache
  batch = jax.tree.leaves(cache)[0].shape[0]
  rows = "data" if batch % model.mesh.shape["data"] == 0 else None
  heads = "model" if model.config.num_kv_heads > 1 else None
  where = shard(model.mesh, rows, None, heads, None)
  return jax.lax.with_sharding_constraint(cache, where)


@functools.partial(jax.jit, static_argnames="mesh")
def _choose(logits, sampling, step, *, mesh: Mesh | None):
  """The next tokens [B], known to every device and so to every process."""
  new = choose(logits, sampling, step)
  if mesh is None:
    return new
  return jax.lax.with_sharding_constraint(new, shard(mesh))


_SHARED = _compile({})
