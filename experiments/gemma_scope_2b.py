"""Gemma Scope on Gemma 2 2B: all its autoencoders.

  python experiments/gemma_scope_2b.py --list
  python experiments/gemma_scope_2b.py --only=16k --data.source=DIR
  python experiments/gemma_scope_2b.py --shard=1/4 --data.source=DIR

`--data.source` is a folder of text, .parquet, .arrow or .array_record files.
Layers, sites, widths and tokens are those of the paper's table 1 (arXiv
2408.05147). Its λ are not published, so each combination of layer, site and
width has five or six targets of L0 instead, which span the L0 released for
layer 12. jaxsae/runs/grid.py says which autoencoders share a run, and why.

The autoencoders of the embedding are missing. Transcoders read the MLP's input
after its norm and gain, as Gemma Scope 2's do; they have one target of L0 per
layer, because the settings of the released ones are not published.

Not yet run at full size.
"""

from jaxsae import runs

ALL = ("resid", "mlp", "attn")

grid = runs.Grid(
  workdir="runs/gemma_scope_2b",
  lm="gemma2-2b-pt",
  parts=(
    runs.GridPart(
      name="16k",
      where=ALL,
      layers=range(26),
      widths=(2**14,),
      target_l0=(20, 40, 80, 160, 400),
      tokens=4_000_000_000,
    ),
    runs.GridPart(
      name="65k",
      where=ALL,
      layers=range(26),
      widths=(2**16,),
      target_l0=(20, 40, 70, 140, 300),
      tokens=8_000_000_000,
    ),
    # With 16k, 65k and 1m, every power of two at one layer.
    runs.GridPart(
      name="ladder",
      where=("resid",),
      layers=(12,),
      widths=(2**15, 2**17, 2**18, 2**19),
      target_l0=(12, 20, 40, 70, 130, 250),
      tokens=8_000_000_000,
    ),
    runs.GridPart(
      name="1m",
      where=("resid",),
      layers=(5, 12, 19),
      widths=(2**20,),
      target_l0=(20, 30, 50, 75, 110, 200),
      tokens=16_000_000_000,
    ),
    runs.GridPart(
      name="transcoders",
      where=("transcoder",),
      layers=range(26),
      widths=(2**14,),
      target_l0=(50,),
      tokens=4_000_000_000,
    ),
  ),
)
configs = grid.configs


if __name__ == "__main__":
  runs.main_each(configs, __doc__)
