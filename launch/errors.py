"""Errors that are shown to the user in one sentence, without a traceback."""


class LaunchError(Exception):
  """An error whose text tells the user how to fix it. Exit status 2."""


class Busy(LaunchError):
  """Another run is already running on the slices."""


class CommandFailed(LaunchError):
  """A command, such as gcloud or kubectl, failed.

  Attributes:
    kind: one of the kinds in `launch.failures`, such as "quota" or "other".
  """

  def __init__(self, kind: str, sentence: str):
    super().__init__(sentence)
    self.kind = kind
