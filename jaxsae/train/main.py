"""What an experiment file ends in."""

from collections.abc import Callable

import rich

from jaxsae import evals, overrides
from jaxsae.errors import exit_on_user_error
from jaxsae.train.config import TrainConfig
from jaxsae.train.loop import train
from jaxsae.train.run import Run, evaluate, open_run


def main(
  config: TrainConfig,
  doc: str | None = None,
  then: Callable[[Run], None] | None = None,
) -> None:
  """Trains with the command line's overrides, evaluates, and goes on.

  Args:
    config: the experiment's.
    doc: its docstring, for `--help`.
    then: what the experiment does with the finished run.
  """
  with exit_on_user_error():
    config = overrides.parse(config, doc=doc)
    train(config)
    run = open_run(config.workdir)
    rich.print(evals.table(evaluate(run)))
    if then is not None:
      then(run)
