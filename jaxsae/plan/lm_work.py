"""What the language model's forward passes take of one device.

Shapes: T time, D embed_dim, H numbers of all query heads, K of all key heads,
F hidden_dim.
"""

import dataclasses
from collections.abc import Sequence

from jax.sharding import AbstractMesh, Mesh

from jaxsae.lm import GemmaConfig, Site
from jaxsae.train.config.run import TrainConfig

_WORD = 2  # bytes; the language model is in bfloat16


@dataclasses.dataclass(frozen=True)
class LmWork:
  """Of one bucket, on one device.

  Attributes:
    flops: operations.
    traffic: bytes read from memory and written to it.
    sent: bytes to other devices.
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
  """Of `config`'s sites, or of others.

  Counts what runs: whole blocks below the last one, and it up to its site.

  Operations: two a weight and token for each product, and four a head's number
  for each key that a query sees. Traffic: each product reads its weights once
  a microbatch and its input and output once a token; residuals go eight times.
  Sent: what is summed over `model` twice a block, and with `fsdp` the weights,
  gathered over `data` for each microbatch; as round a ring.
  """
  data, model = mesh.shape["data"], mesh.shape["model"]
  parts = _parts(config.sites if sites is None else sites)
  blocks = [_block(gemma, *part, config) for part in parts]
  tokens = config.bucket_tokens / data
  flops = tokens / model * sum(block.flops for block in blocks)
  weights = _WORD * sum(block.weights for block in blocks) / model
  passes = config.bucket.microbatches
  words = sum(block.split for block in blocks) / model
  words += sum(block.whole for block in blocks)
  traffic = passes * weights + _WORD * tokens * words
  sums = 1 + sum(block.sums for block in blocks)  # and one of the embedding
  made = _WORD * tokens * gemma.embed_dim
  sent = 2 * (1 - 1 / model) * sums * made
  if config.fsdp:
    sent += (1 - 1 / data) * passes * weights
  return LmWork(flops, traffic, sent)


@dataclasses.dataclass(frozen=True)
class _Block:
  """Of one token: operations, weights, words and sums over `model`."""

  flops: float
  weights: float
  split: float  # words that devices of `model` share
  whole: float  # that each has
  sums: int


def _parts(sites: Sequence[Site]) -> list[tuple[int, str]]:
  """(layer, up to which site) of every block that runs."""
  order = ("attn", "mlp_in", "mlp", "resid")
  sites = [(site.layer, order.index(site.where)) for site in sites]
  last, where = max(sites)
  return [(i, "resid") for i in range(last)] + [(last, order[where])]


def _block(gemma: GemmaConfig, layer: int, until: str, config) -> _Block:
  d, f = gemma.embed_dim, gemma.hidden_dim
  h = gemma.num_heads * gemma.head_dim
  k = gemma.num_kv_heads * gemma.head_dim
  seen = _keys_seen(gemma, layer, config.data.context)
  weights, split, whole, sums = d * (h + 2 * k), 2 * (h + 2 * k), 3 * d, 0
  attention = 4 * h * seen
  if until != "attn":
    weights, whole, sums = weights + h * d, whole + 3 * d, 1
    split += 2 * h
  if until in ("mlp", "resid"):
    weights, whole, sums = weights + 3 * d * f, whole + 4 * d, 2
    split += 2 * f
  return _Block(2 * weights + attention, weights, split, whole, sums)


def _keys_seen(gemma: GemmaConfig, layer: int, time: int) -> float:
  """Mean over the queries of a row that is one document."""
  reach = min(gemma.window, time) if gemma.is_local(layer) else time
  ramp = reach * (reach + 1) / 2
  return (ramp + (time - reach) * reach) / time
