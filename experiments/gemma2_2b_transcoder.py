"""Eight transcoders of the MLP in layer 12 of Gemma 2 2B.

  python experiments/gemma2_2b_transcoder.py --data.source=DIR --workdir=DIR

`--data.source` is a folder of text, .parquet, .arrow or .array_record files.
They predict the MLP's output from its input after the norm: four from latents
alone, and four that also add an affine map of the input (arXiv 2501.18823). The
recipe is Gemma Scope's at width 16,384, with an eighth of its tokens and a
penalty on the distance from targets of L0.

Not yet run at full size.
"""

import dataclasses

from jaxsae import runs, train
from jaxsae.data import DataConfig
from jaxsae.lm import Taps

plain = train.presets.gemma_scope_to(
  sites=(Taps.transcoder(12),), widths=(16_384,), target_l0=(20, 40, 80, 160)
)

config = train.TrainConfig(
  workdir="runs/gemma2_2b_transcoder",
  lm="gemma2-2b-pt",
  tokens=500_000_000,
  data=DataConfig(source="", context=1024),
  sae=plain,
  also=(dataclasses.replace(plain, name="skip", skip=True),),
)

if __name__ == "__main__":
  runs.main(config, __doc__)
