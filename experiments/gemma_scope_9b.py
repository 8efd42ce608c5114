"""Gemma Scope on Gemma 2 9B, pretrained and instruction-tuned.

  python experiments/gemma_scope_9b.py --list
  python experiments/gemma_scope_9b.py --only=ladder --data.source=DIR
  python experiments/gemma_scope_9b.py --shard=1/4 --data.source=DIR

`--data.source` is a folder of text, .parquet, .arrow or .array_record files.
Layers, sites, widths and tokens are those of the paper's table 1 (arXiv
2408.05147). Its λ are not published, so each combination of layer, site and
width has five or six targets of L0 instead, which span the L0 released for
layer 20. jaxsae/runs/grid.py says which autoencoders share a run, and why.

The published autoencoders of the tuned model were trained on text formatted as
turns of a chat, without the tokens of the user's prefix. Here those tokens are
trained on too, so expect a difference; give the runs of the tuned model
(`it_…`, one by one with --only) such text. The autoencoders of the embedding
are missing.

Not yet run at full size.
"""

from jaxsae import runs, train

ALL = ("resid", "mlp", "attn")

pretrained = runs.Grid(
  workdir="runs/gemma_scope_9b",
  lm="gemma2-9b-pt",
  parts=(
    runs.GridPart(
      name="16k",
      where=ALL,
      layers=range(42),
      widths=(2**14,),
      target_l0=(10, 20, 35, 70, 140, 400),
      tokens=4_000_000_000,
    ),
    runs.GridPart(
      name="131k",
      where=ALL,
      layers=range(42),
      widths=(2**17,),
      target_l0=(10, 20, 35, 60, 115, 275),
      tokens=8_000_000_000,
    ),
    # With 16k, 131k and 1m, every power of two at one layer.
    runs.GridPart(
      name="ladder",
      where=("resid",),
      layers=(20,),
      widths=(2**15, 2**16, 2**18, 2**19),
      target_l0=(10, 20, 35, 60, 115, 250),
      tokens=8_000_000_000,
    ),
    runs.GridPart(
      name="1m",
      where=("resid",),
      layers=(9, 20, 31),
      widths=(2**20,),
      target_l0=(10, 20, 35, 55, 100, 190),
      tokens=16_000_000_000,
    ),
  ),
)
tuned = runs.Grid(
  workdir="runs/gemma_scope_9b",
  lm="gemma2-9b-it",
  parts=(
    runs.GridPart(
      name="it_16k",
      where=("resid",),
      layers=(9, 20, 31),
      widths=(2**14,),
      target_l0=(20, 40, 80, 160, 400),
      tokens=4_000_000_000,
    ),
    runs.GridPart(
      name="it_131k",
      where=("resid",),
      layers=(9, 20, 31),
      widths=(2**17,),
      target_l0=(20, 35, 60, 115, 275),
      tokens=8_000_000_000,
    ),
  ),
)


def configs() -> dict[str, train.TrainConfig]:
  return pretrained.configs() | tuned.configs()


if __name__ == "__main__":
  runs.main_each(configs, __doc__)
