"""What is printed reaches any terminal, and nothing ends for its characters."""

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]
ASCII = {"PYTHONIOENCODING": "ascii"}
# Not even Python's own way out of the C locale.
C = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def run(arguments, environment):
  kept = {"PATH": os.environ["PATH"], "JAX_PLATFORMS": "cpu"}
  return subprocess.run(
    [sys.executable, *arguments],
    capture_output=True,
    cwd=ROOT,
    env=kept | environment | {"PYTHONPATH": str(ROOT)},
  )


@pytest.mark.parametrize("environment", [ASCII, C], ids=["ascii", "C"])
def test_what_cannot_be_written_is_spelled_out(environment):
  said, error = "reading … 2 × λ, é", "no θ in 日"
  code = (
    "from jaxsae.errors import exit_on_user_error, UserError\n"
    "with exit_on_user_error():\n"
    f"  print({said!a}); raise UserError({error!a})"
  )
  done = run(["-c", code], environment)
  assert done.returncode == 2
  assert done.stdout == b"reading ... 2 x lambda, \\xe9\n"
  assert done.stderr == b"error: no theta in \\u65e5\n"


def test_utf8_stays_as_it_is():
  code = f"from jaxsae import pod; pod.print_on_leader({'2 × λ …'!a})"
  done = run(["-c", code], {"PYTHONIOENCODING": "utf-8"})
  assert done.stdout.decode() == "2 × λ …\n"


@pytest.mark.parametrize(
  "arguments",
  [
    ["-m", "experiments.quickstart", "--help"],
    ["-m", "jaxsae.cli", "eval", "--help"],
    ["-m", "launch", "create", "--help"],
  ],
  ids=lambda words: words[1],
)
def test_help_reaches_a_terminal_of_ascii(arguments):
  done = run(arguments, ASCII)
  assert done.returncode == 0 and b"Traceback" not in done.stderr
  assert len(done.stdout) > 300
