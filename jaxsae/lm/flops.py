"""FLOPs of the language model's forward pass, up to the sites that are read."""

from collections.abc import Sequence

from jaxsae.lm.config import GemmaConfig
from jaxsae.lm.sites import Site

_ORDER = ("attn", "mlp_in", "mlp", "resid")  # of the sites in a block


def forward_flops_per_token(
  config: GemmaConfig, sites: Sequence[Site], context: int
) -> float:
  """FLOPs per token of a forward pass that ends at the last of some sites.

  Two for each weight of a matrix product, and in attention four per number of
  a query for each key that it sees: two for the logit, two for the weighted
  sum of values. Blocks below the last site count whole, and the last block up
  to the site. The mean is over a row of one document, in which a query sees
  itself and the keys before it, within the window of a local layer.

  Not counted: the embedding, which is a lookup; norms, RoPE, softmax and other
  elementwise operations; the unembedding, because the pass ends at a site; and
  logits that a kernel computes and then masks.

  Args:
    config: the model's sizes.
    sites: sites that are read; single ones, not pairs.
    context: tokens in a row.
  """
  numbers = config.num_heads * config.head_dim
  return sum(
    2 * block_weights(config, until)
    + 4 * numbers * _keys_seen(config, layer, context)
    for layer, until in blocks_to(sites)
  )


def blocks_to(sites: Sequence[Site]) -> list[tuple[int, str]]:
  """Returns (layer, site up to which it runs) of every block that runs."""
  layer, place = max((site.layer, _ORDER.index(site.where)) for site in sites)
  return [(i, "resid") for i in range(layer)] + [(layer, _ORDER[place])]


def block_weights(config: GemmaConfig, until: str) -> int:
  """Returns the number of weights in a block's products up to a site."""
  d, f = config.embed_dim, config.hidden_dim
  heads = config.num_heads * config.head_dim
  weights = d * (heads + 2 * config.num_kv_heads * config.head_dim)
  if until != "attn":
    weights += heads * d
  if until in ("mlp", "resid"):
    weights += 3 * d * f
  return weights


def _keys_seen(config: GemmaConfig, layer: int, time: int) -> float:
  """Returns the mean number of keys that a query of a row sees."""
  reach = min(config.window, time) if config.is_local(layer) else time
  ramp = reach * (reach + 1) / 2
  return (ramp + (time - reach) * reach) / time
