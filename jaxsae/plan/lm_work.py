"""FLOPs and bytes that the language model's forward passes take.

Sizes: T time, D embed_dim, H all query heads together, K all key heads
together, F hidden_dim.
"""

import dataclasses
from collections.abc import Sequence

from jax.sharding import AbstractMesh, Mesh

from jaxsae.lm import GemmaConfig, Site
from jaxsae.lm.flops import block_weights, blocks_to, forward_flops_per_token
from jaxsae.train.config.run import TrainConfig

_BFLOAT16 = 2  # bytes of a number; the language model is in bfloat16


@dataclasses.dataclass(frozen=True)
class LmWork:
  """The language model's work for one bucket, on one device.

  Attributes:
    flops: FLOPs.
    traffic: bytes read from memory and written to it.
    sent: bytes sent to other devices.
  """

  flops: float
  traffic: float
  sent: float


def work(
  config: TrainConfig,
  gemma: GemmaConfig,
  mesh: Mesh | AbstractMesh,
  sites: Sequence[Site] | None = None,
) -> LmWork:
  """Returns the work of reading some sites; by default all of `config`.

  Counts the blocks that run: the last one up to its site, those below whole.

  FLOPs: `forward_flops_per_token`. Traffic: each product reads its
  weights once per microbatch, and reads its input and writes its output once
  per token; residuals are read or written eight times. Sent, as in a ring:
  sums over `model`, two per block, and with `fsdp` the weights, gathered over
  `data` for each microbatch.
  """
  data, model = mesh.shape["data"], mesh.shape["model"]
  sites = config.sites if sites is None else sites
  blocks = [_block(gemma, until) for _, until in blocks_to(sites)]
  tokens = config.bucket_tokens / data
  per_token = forward_flops_per_token(gemma, sites, config.data.context)
  flops = tokens / model * per_token
  weights = _BFLOAT16 * sum(block.weights for block in blocks) / model
  passes = config.microbatches
  numbers = sum(block.sharded for block in blocks) / model
  numbers += sum(block.replicated for block in blocks)
  traffic = passes * weights + _BFLOAT16 * tokens * numbers
  sums = 1 + sum(block.sums for block in blocks)  # one for the embedding
  made = _BFLOAT16 * tokens * gemma.embed_dim
  sent = 2 * (1 - 1 / model) * sums * made
  if config.fsdp:
    sent += (1 - 1 / data) * passes * weights
  return LmWork(flops, traffic, sent)


@dataclasses.dataclass(frozen=True)
class _Block:
  """The traffic of one block: its weights, and the rest per token."""

  weights: float  # number of weights in its products
  sharded: float  # numbers read and written that are sharded over `model`
  replicated: float  # numbers read and written by every device of `model`
  sums: int  # all-reduces of embed_dim numbers over `model`


def _block(gemma: GemmaConfig, until: str) -> _Block:
  d, f = gemma.embed_dim, gemma.hidden_dim
  h = gemma.num_heads * gemma.head_dim
  k = gemma.num_kv_heads * gemma.head_dim
  sharded, replicated, sums = 2 * (h + 2 * k), 3 * d, 0
  if until != "attn":
    sharded, replicated, sums = sharded + 2 * h, replicated + 3 * d, 1
  if until in ("mlp", "resid"):
    sharded, replicated, sums = sharded + 2 * f, replicated + 4 * d, 2
  return _Block(block_weights(gemma, until), sharded, replicated, sums)
