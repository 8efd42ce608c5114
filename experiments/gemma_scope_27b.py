"""Gemma Scope on Gemma 2 27B: all its autoencoders.

  python experiments/gemma_scope_27b.py --list
  python experiments/gemma_scope_27b.py --data.source=DIR

`--data.source` is a folder of text, .parquet, .arrow or .array_record files.
Layers, sites, widths and tokens are those of the paper's table 1 (arXiv
2408.05147). Its λ are not published, so each combination of layer, site and
width has six targets of L0 instead, which span the L0 released for layer 22.
jaxsae/runs/grid.py says which autoencoders share a run, and why.

Not yet run at full size.
"""

from jaxsae import runs

grid = runs.Grid(
  workdir="runs/gemma_scope_27b",
  lm="gemma2-27b-pt",
  parts=(
    runs.GridPart(
      name="131k",
      where=("resid",),
      layers=(10, 22, 34),
      widths=(2**17,),
      target_l0=(20, 30, 50, 80, 150, 290),
      tokens=8_000_000_000,
    ),
  ),
  fsdp=True,
)
configs = grid.configs


if __name__ == "__main__":
  runs.main_each(configs, __doc__)
