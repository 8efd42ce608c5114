"""The command line of this process, for a person to give again."""

import shlex
import sys


def again(*more: str) -> str:
  """The command that goes on with the run, with further settings at its end.

  Of a repeated setting the last holds.
  """
  return shlex.join([sys.executable, *sys.argv, *more])
