"""The configuration of a training run."""

from jaxsae.train.config.run import BucketConfig as BucketConfig
from jaxsae.train.config.run import EvalConfig as EvalConfig
from jaxsae.train.config.run import TrainConfig as TrainConfig
from jaxsae.train.config.sweep import OptimConfig as OptimConfig
from jaxsae.train.config.sweep import SweepConfig as SweepConfig
