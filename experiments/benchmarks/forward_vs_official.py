"""Forward pass of Gemma 2: ours beside the official library's.

  pip install "jaxsae[gemma]"
  python -m experiments.benchmarks.forward_vs_official

Both have the same parameters: four layers of Gemma 2, narrow enough for a
laptop. Time is the median over turns; memory is what the compiler reserves for
temporaries.
"""

import functools
import statistics

import jax
from gemma import gm
from gemma.gm.nn import config as official_config

from experiments.benchmarks import table, turns
from jaxsae.lm import GemmaConfig, Lm, init_params

LAYERS = 4
SHAPES = [(8, 128), (4, 512), (2, 1024), (1, 2048)]


def main():
  table.head(
    *("B x T", "ours ms", "official ms", "ratio", "ours MiB", "official MiB")
  )
  params = jax.jit(init_params, static_argnums=0)(CONFIG, jax.random.key(0))
  for shape in SHAPES:
    measure(params, shape)


def measure(params, shape):
  """Prints the table's line for one shape."""
  tokens = jax.random.randint(jax.random.key(1), shape, 0, CONFIG.vocab_size)
  both = [f.lower(params, tokens).compile() for f in (ours, official)]
  run = lambda compiled: jax.block_until_ready(compiled(params, tokens))
  mine, theirs = turns.take(functools.partial(run, c) for c in both)
  memory = [c.memory_analysis().temp_size_in_bytes / 2**20 for c in both]
  table.row(
    f"{shape[0]} x {shape[1]}",
    f"{1e3 * statistics.median(mine):.0f}",
    f"{1e3 * statistics.median(theirs):.0f}",
    f"{turns.ratio(mine, theirs):.2f}",
    *(f"{m:.0f}" for m in memory),
  )


CONFIG = GemmaConfig(
  vocab_size=1024,
  num_layers=LAYERS,
  embed_dim=512,
  hidden_dim=2048,
  num_heads=8,
  num_kv_heads=4,
  head_dim=64,
  query_pre_attn_scalar=64,
  window=512,
)


@jax.jit
def ours(params, tokens):
  return Lm(params, CONFIG).logits(tokens)


@jax.jit
def official(params, tokens):
  return OFFICIAL.apply({"params": params}, tokens).logits


def official_model():
  """Makes the official Transformer with the sizes of CONFIG."""
  kinds = gm.nn.AttentionType
  pattern = (kinds.LOCAL_SLIDING, kinds.GLOBAL)
  config = official_config.TransformerConfig(
    num_embed=CONFIG.vocab_size,
    embed_dim=CONFIG.embed_dim,
    hidden_dim=CONFIG.hidden_dim,
    num_heads=CONFIG.num_heads,
    num_kv_heads=CONFIG.num_kv_heads,
    head_dim=CONFIG.head_dim,
    final_logit_softcap=CONFIG.final_softcap,
    attn_logits_soft_cap=CONFIG.attn_softcap,
    attention_types=pattern * (LAYERS // 2),
    use_post_attn_norm=True,
    use_post_ffw_norm=True,
    sliding_window_size=CONFIG.window,
    transpose_gating_einsum=CONFIG.transpose_gating,
  )
  return gm.nn.Transformer(config=config)


OFFICIAL = official_model()


if __name__ == "__main__":
  main()
