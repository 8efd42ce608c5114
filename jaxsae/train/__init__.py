"""Training, and what is made of a run afterwards."""

from jaxsae.train import presets as presets
from jaxsae.train.config import BucketConfig as BucketConfig
from jaxsae.train.config import EvalConfig as EvalConfig
from jaxsae.train.config import OptimConfig as OptimConfig
from jaxsae.train.config import SweepConfig as SweepConfig
from jaxsae.train.config import TrainConfig as TrainConfig
from jaxsae.train.grid import Grid as Grid
from jaxsae.train.grid import Row as Row
from jaxsae.train.loop import train as train
from jaxsae.train.main import main as main
from jaxsae.train.main import main_each as main_each
from jaxsae.train.run import Run as Run
from jaxsae.train.run import evaluate as evaluate
from jaxsae.train.run import explore as explore
from jaxsae.train.run import export as export
from jaxsae.train.run import figures as figures
from jaxsae.train.run import open_run as open_run
