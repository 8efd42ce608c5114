"""Our forward pass beside the official library's, in one run.

  pip install "jaxsae[gemma]"
  python experiments/benchmarks/forward_vs_official.py

Both get the same parameters, four layers of Gemma 2 at a width that a laptop
can run. Time is the median of turns taken one after the other; memory is what
the compiler sets aside for temporaries. On two busy CPU cores, 2026-11-21,
jax 0.10.0, gemma 3.3.0:

|  B x T | ours ms | official ms | ratio | ours MiB | official MiB |
|---|---|---|---|---|---|
| 8 x 128 | 103 | 106 | 0.97 | 59 | 59 |
| 4 x 512 | 223 | 365 | 0.61 | 85 | 105 |
| 2 x 1024 | 274 | 728 | 0.38 | 112 | 169 |
| 1 x 2048 | 410 | 1330 | 0.31 | 184 | 297 |
"""

import statistics
import time

import jax
from gemma import gm
from gemma.gm.nn import config as official_config

from jaxsae.lm import GemmaConfig, Lm, init_params

TURNS = 9
LAYERS = 4
SHAPES = [(8, 128), (4, 512), (2, 1024), (1, 2048)]


def main():
  print("|  B x T | ours ms | official ms | ratio | ours MiB | official MiB |")
  print("|---|---|---|---|---|---|")
  params = jax.jit(init_params, static_argnums=0)(CONFIG, jax.random.key(0))
  for shape in SHAPES:
    tokens = jax.random.randint(jax.random.key(1), shape, 0, CONFIG.vocab_size)
    both = [f.lower(params, tokens).compile() for f in (ours, official)]
    mine, theirs = take_turns(both, params, tokens)
    ratio = statistics.median(m / t for m, t in zip(mine, theirs, strict=True))
    memory = [c.memory_analysis().temp_size_in_bytes / 2**20 for c in both]
    print(
      f"| {shape[0]} x {shape[1]}"
      f" | {1e3 * statistics.median(mine):.0f}"
      f" | {1e3 * statistics.median(theirs):.0f}"
      f" | {ratio:.2f} | {memory[0]:.0f} | {memory[1]:.0f} |",
      flush=True,
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
  """The official Transformer with the sizes of CONFIG."""
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


def take_turns(functions, *arguments):
  """Seconds of each turn of each function, warmed up, one after the other."""
  for function in functions:
    jax.block_until_ready(function(*arguments))
  times = [[] for _ in functions]
  for _ in range(TURNS):
    for function, seconds in zip(functions, times, strict=True):
      start = time.perf_counter()
      jax.block_until_ready(function(*arguments))
      seconds.append(time.perf_counter() - start)
  return times


if __name__ == "__main__":
  main()
