"""What a person is told in one sentence, without a traceback."""


class LaunchError(Exception):
  """Something that a person can put right; its text says how. Exit status 2."""


class Busy(LaunchError):
  """Another run is under way there."""


class CommandFailed(LaunchError):
  """A command of another program failed.

  Attributes:
    kind: one of the kinds of `launch.failures`; "other" if it is none of them.
  """

  def __init__(self, kind: str, sentence: str):
    super().__init__(sentence)
    self.kind = kind
