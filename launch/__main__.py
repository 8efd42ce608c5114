"""`python -m launch VERB …`"""

import io
import sys

from launch import command_line, delete_on_exit
from launch.errors import LaunchError
from launch.verbs import Session


def main(argv: list[str] | None = None) -> int:
  """Carries out one verb and returns its exit status."""
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):  # it may have only ASCII
      stream.reconfigure(errors="backslashreplace")
  try:
    options = command_line.parse(sys.argv[1:] if argv is None else argv)
    with delete_on_exit.raise_on_signals():
      return Session(options).do()
  except LaunchError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    return 130
  except delete_on_exit.Terminated:
    return 143


if __name__ == "__main__":
  sys.exit(main())
