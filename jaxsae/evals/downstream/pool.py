"""One vector for each text: its activations and latents, pooled over tokens.

One forward pass of the language model serves all autoencoders. Only text
tokens count; BOS, EOS, padding and excluded tokens never do.

Shapes: N texts, B rows of a step, T time, D width of what is read, F latents.
"""

import dataclasses
import functools
import typing
from collections.abc import Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from jaxsae import mesh as meshes
from jaxsae import pod
from jaxsae.errors import UserError
from jaxsae.evals.steps import ChunkedSae, in_steps
from jaxsae.lm import Lm, Site, Taps, capture
from jaxsae.lm.sharding import keep_rows_over_data
from jaxsae.sae import Sae
from jaxsae.token_batch import TokenBatch

# How the tokens of a text become one vector: SAEBench takes the mean,
# sae-probes the last token.
Pool = Literal["mean", "max", "last"]
POOLS = typing.get_args(Pool)

_LATENTS = 2**28  # bytes of one autoencoder's latents in a step, per device


@dataclasses.dataclass(frozen=True)
class Pooled:
  """The vectors of some texts.

  Attributes:
    latents: name of an autoencoder → float32 [N, F], sparse.
    raw: sites that are read → float32 [N, D].
  """

  latents: Mapping[str, sparse.csr_matrix]
  raw: Mapping[tuple[Site, ...], np.ndarray]


def to_rows(
  lm: Lm, texts: Sequence[str], context: int, pool: Pool
) -> list[tuple[int, ...]]:
  """Returns the token ids of texts, each after BOS and of limited length.

  A text that is longer than `context` loses its end, as in SAEBench, or its
  begin where its last token is what counts, as in sae-probes.

  Raises:
    UserError: the model has no tokenizer, or `context` is too long for it.
  """
  if lm.tokenizer is None:
    raise UserError(
      f"{lm.name or 'The language model'} has no tokenizer to read texts with;"
      " put its tokenizer.model beside its weights."
    )
  lm.check_length(context)
  size, bos = context - 1, lm.tokenizer.bos
  found = lm.tokenizer.encode(list(texts))
  kept = [x[-size:] if pool == "last" else x[:size] for x in found]
  return [(bos, *x) for x in kept]


def pooled(
  lm: Lm,
  placed: Mapping[str, tuple[Taps, Sae]],
  rows: Sequence[Sequence[int]],
  pool: Pool,
) -> Pooled:
  """Reads texts once, and pools what each autoencoder makes of them.

  Args:
    lm: the language model.
    placed: name → taps and autoencoder of raw activations. Those of one shape
      share one compiled function.
    rows: the token ids of each text, from `to_rows`.
    pool: how the tokens of a text become one vector.
  """
  sites = tuple(sorted({s for taps, _ in placed.values() for s in taps.reads}))
  every = {taps.reads for taps, _ in placed.values()}
  latents, raw = {name: [] for name in placed}, {reads: [] for reads in every}
  for step in in_steps(lm, _batches(lm, placed, rows), sites):
    x, mask = meshes.wait_for(read(lm, sites, pool, step.text))
    for reads in every:
      raw[reads].append(_host(pool_raw([x[s] for s in reads], mask, pool)))
    for name, (taps, sae) in placed.items():
      chunked, read_here = ChunkedSae(sae, lm.mesh), [x[s] for s in taps.reads]
      found = _host(pool_latents(chunked, read_here, mask, pool))
      latents[name].append(sparse.csr_matrix(found))
  size = len(rows)
  return Pooled(
    {name: _stacked(x)[:size] for name, x in latents.items()},
    {reads: np.concatenate(x)[:size] for reads, x in raw.items()},
  )


def sample_tokens(
  lm: Lm, placed: Mapping[str, tuple[Taps, Sae]], rows: Sequence[Sequence[int]]
) -> dict[Site, np.ndarray]:
  """Returns the activations [n, D] of all text tokens of a few texts."""
  sites = tuple(sorted({s for taps, _ in placed.values() for s in taps.reads}))
  found = {site: [] for site in sites}
  for step in in_steps(lm, _batches(lm, placed, rows), sites):
    x, mask = pod.to_host(meshes.wait_for(read(lm, sites, "mean", step.text)))
    for site in sites:
      found[site].append(x[site][mask])
  return {site: np.concatenate(x) for site, x in found.items()}


def _stacked(parts: Sequence[sparse.csr_matrix]) -> sparse.csr_matrix:
  return sparse.csr_matrix(sparse.vstack(parts, "csr"))


def _host(x: jax.Array) -> np.ndarray:
  return pod.to_host(meshes.wait_for(x))


def _batches(lm, placed, rows) -> list[TokenBatch[np.ndarray]]:
  """Returns the rows as batches whose latents fit in memory all at once."""
  longest = max(map(len, rows))
  time = min(lm.config.context, 1 << (longest - 1).bit_length())
  data, model = (
    1 if lm.mesh is None else lm.mesh.shape[axis] for axis in ("data", "model")
  )
  width = max(sae.width for _, sae in placed.values())
  most = data * max(1, _LATENTS * model // (4 * width * time))
  tokens = np.zeros((len(rows), time), np.int32)
  segments = np.zeros_like(tokens)
  for index, row in enumerate(rows):
    tokens[index, : len(row)], segments[index, : len(row)] = row, 1
  positions = np.broadcast_to(np.arange(time, dtype=np.int32), tokens.shape)
  cut = lambda x, at: x[at : at + most]
  return [
    TokenBatch(
      positions=cut(positions, at),
      segments=cut(segments, at),
      tokens=cut(tokens, at),
    )
    for at in range(0, len(rows), most)
  ]


@functools.partial(jax.jit, static_argnames=("sites", "pool"))
def read(
  lm: Lm, sites: tuple[Site, ...], pool: Pool, step: TokenBatch
) -> tuple[dict[Site, jax.Array], jax.Array]:
  """Returns activations float32 [B, T, D] by site, and which tokens count.

  Where only the last text token counts, T is 1.
  """
  found = capture(lm, step.tokens, *sites, **step.packing)
  mask = lm.text_mask(step.tokens, step.segments) > 0
  x = {
    site: keep_rows_over_data(found[site], lm.mesh).astype(jnp.float32)
    for site in sites
  }
  if pool != "last":
    return x, mask
  last = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)[:, None]
  at_last = lambda x: jnp.take_along_axis(x, last[..., None], axis=1)
  return jax.tree.map(at_last, x), jnp.any(mask, axis=1, keepdims=True)


@functools.partial(jax.jit, static_argnames="pool")
def pool_raw(
  reads: Sequence[jax.Array], mask: jax.Array, pool: Pool
) -> jax.Array:
  """Pools the activations of sites [B, T, D], joined, to [B, D]."""
  x = jnp.concatenate(reads, axis=-1)
  if pool == "max":
    most = jnp.max(x, axis=1, where=mask[..., None], initial=-jnp.inf)
    return jnp.where(jnp.any(mask, axis=1, keepdims=True), most, 0.0)
  return _mean(jnp.sum(x, axis=1, where=mask[..., None]), mask)


@functools.partial(jax.jit, static_argnames="pool")
def pool_latents(
  chunked: ChunkedSae, reads: Sequence[jax.Array], mask: jax.Array, pool: Pool
) -> jax.Array:
  """Pools the latents of activations [B, T, D] to [B, F]."""
  over = jnp.max if pool == "max" else jnp.sum

  def of_chunk(sae, mask, *reads):
    latents = sae.encode(jnp.concatenate(reads, axis=-1))
    return (over(jnp.where(mask[..., None], latents, 0.0), axis=1),)

  (found,) = chunked.map(of_chunk, mask, *reads)
  found = over(found, axis=0)
  return found if pool == "max" else _mean(found, mask)


def _mean(total: jax.Array, mask: jax.Array) -> jax.Array:
  count = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
  return total / count.astype(total.dtype)
