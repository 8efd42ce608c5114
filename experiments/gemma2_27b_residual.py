"""Three autoencoders on the residual stream after layer 22 of Gemma 2 27B.

  python experiments/gemma2_27b_residual.py --data.source=DIR --workdir=DIR

`--data.source` is a folder of text, .parquet, .arrow or .array_record files.
The recipe is Gemma Scope's at width 131,072, with an eighth of its tokens and a
penalty on the distance from targets of L0, which span the L0 of its release.

Not yet run at full size.
"""

from jaxsae import runs, train
from jaxsae.data import DataConfig
from jaxsae.lm import Site

config = train.TrainConfig(
  workdir="runs/gemma2_27b_residual",
  lm="gemma2-27b-pt",
  tokens=1_000_000_000,
  data=DataConfig(source="", context=1024),
  sae=train.presets.gemma_scope_to(
    sites=(Site("resid", 22),), widths=(131_072,), target_l0=(30, 80, 150)
  ),
  fsdp=True,
)

if __name__ == "__main__":
  runs.main(config, __doc__)
