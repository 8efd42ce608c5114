"""Training one run: language model, autoencoders, buckets and updates."""

from jaxsae.renamed import forward
from jaxsae.train.arrays import train_on as train_on
from jaxsae.train.config import BucketConfig as BucketConfig
from jaxsae.train.config import EvalConfig as EvalConfig
from jaxsae.train.config import OptimConfig as OptimConfig
from jaxsae.train.config import SweepConfig as SweepConfig
from jaxsae.train.config import TrainConfig as TrainConfig
from jaxsae.train.config import presets as presets
from jaxsae.train.loop import train as train
from jaxsae.train.monitor.lines import read_metrics as read_metrics

__getattr__ = forward(
  __name__,
  {
    name: f"jaxsae.runs.{name}"
    for name in (
      "Grid",
      "Run",
      "evaluate",
      "explore",
      "export",
      "figures",
      "main",
      "main_each",
      "open_run",
    )
  }
  | {"Row": "jaxsae.runs.GridPart"},
)
