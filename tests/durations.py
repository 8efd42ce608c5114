"""Writes how long each test file takes, which decides the order of a run.

  python -m pytest -n 2 --durations=0 --durations-min=0.1 > whole.log
  python -m tests.durations whole.log
"""

import collections
import json
import pathlib
import re
import sys

FILE = pathlib.Path(__file__).with_suffix(".json")
LINE = re.compile(r"\s*([\d.]+)s (?:call|setup|teardown)\s+(\S+?)::")


def main() -> None:
  seconds = collections.Counter()
  for line in pathlib.Path(sys.argv[1]).read_text().splitlines():
    if found := LINE.match(line):
      seconds[found[2]] += float(found[1])
  rounded = {file: round(seconds[file], 1) for file in sorted(seconds)}
  FILE.write_text(json.dumps(rounded, indent=2) + "\n")


def read() -> dict[str, float]:
  """Returns the seconds of each file of tests, by its path from the root."""
  return json.loads(FILE.read_text())


if __name__ == "__main__":
  main()
