"""Four autoencoders on the attention heads' output in layer 12 of Gemma 2 2B.

  python experiments/gemma2_2b_attention.py --data.source=DIR --workdir=DIR

`--data.source` is a folder of text, .parquet, .arrow or .array_record files.
The recipe is Gemma Scope's at width 16,384, with an eighth of its tokens and a
penalty on the distance from targets of L0, which span the L0 of its release.

Not yet run at full size.
"""

from jaxsae import runs, train
from jaxsae.data import DataConfig
from jaxsae.lm import Site

config = train.TrainConfig(
  workdir="runs/gemma2_2b_attention",
  lm="gemma2-2b-pt",
  tokens=500_000_000,
  data=DataConfig(source="", context=1024),
  sae=train.presets.gemma_scope_to(
    sites=(Site("attn", 12),), widths=(16_384,), target_l0=(20, 40, 80, 160)
  ),
)

if __name__ == "__main__":
  runs.main(config, __doc__)
