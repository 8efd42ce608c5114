"""Six autoencoders on two sites of a small Gemma 2, from text to a web page.

  make quickstart
  python experiments/quickstart.py --workdir=runs/quickstart

Trains on the sources of Python's standard library, evaluates the autoencoders
on held-out files, exports them in Gemma Scope's format and makes a web page
that shows their latents.

`make quickstart` took 3 min 5 s on two CPU cores on 2026-11-21, in a fresh
clone with its packages already downloaded, with Python 3.11.7. Results on
97,886 held-out tokens (recovered: share of the loss that zero ablation adds):

                        L0    FVU  delta loss  recovered  dead
  resid.3/2048/l0_12  12.2  0.232      0.6976      0.899  6.1%
  resid.3/2048/l0_24  24.3  0.179      0.4680      0.932  4.5%
  resid.3/2048/l0_48  48.3  0.130      0.2648      0.962  4.5%
  mlp.3/2048/l0_12    12.4  0.231      0.0372      0.837  0.9%
  mlp.3/2048/l0_24    24.4  0.180      0.0297      0.870  1.3%
  mlp.3/2048/l0_48    48.6  0.118      0.0145      0.936  1.5%
"""

from jaxsae import runs, train
from jaxsae.data import DataConfig
from jaxsae.files import is_finished
from jaxsae.lm import Site

config = train.TrainConfig(
  workdir="runs/quickstart",
  lm="gemma2-tiny",
  tokens=1_300_000,
  data=DataConfig(context=256),
  sae=train.SweepConfig(
    sites=(Site("resid", 3), Site("mlp", 3)),
    widths=(2048,),
    penalty="quadratic",
    target_l0=(12, 24, 48),
    sparsity_coefficient=(0.05,),
    bandwidth=0.01,
    initial_threshold=0.1,
    wake_after=32_768,
    # With a thousandth of Gemma Scope's tokens: higher rates, shorter warm-ups,
    # and a second moment that forgets the first updates sooner.
    optim=train.OptimConfig(
      lr=2e-3, lr_warmup=50, lr_decay=0.2, sparsity_warmup=200, b2=0.99
    ),
  ),
  bucket=train.BucketConfig(microbatches=4, update_tokens=1024),
  eval=train.EvalConfig(batches=12, loss_batches=4, control_batches=1),
  dead_after=300_000,
  checkpoint_every=10,
)


def finish(run: runs.Run) -> None:
  """Exports the autoencoders, makes the page, and prints where both are."""
  out = run.path / "export" / "gemma_scope"
  if not is_finished(out):  # made by an earlier call of the same command
    runs.export_held(run, "gemma_scope", out)
  page = runs.report(run)
  if is_finished(out):
    print(f"autoencoders  {out}")
  print(f"figures       {run.path / 'eval'}")
  print(f"look at the latents: {page}")


if __name__ == "__main__":
  runs.main(config, __doc__, then=finish)
