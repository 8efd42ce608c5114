"""An entry point ends with one line for a user's mistake, else a traceback."""

import errno
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from jaxsae import errors
from jaxsae.errors import (
  RunError,
  UserError,
  did_you_mean,
  ended_by_ctrl_c,
  ended_by_sigterm,
  exit_on_user_error,
  first_few,
)


def raises(error):
  raise error


def test_a_user_error_is_one_line_and_status_2(capsys):
  with pytest.raises(SystemExit) as stop, exit_on_user_error():
    raises(UserError("width=7 is odd; give 8"))
  assert stop.value.code == 2
  captured = capsys.readouterr()
  assert captured.err == "error: width=7 is odd; give 8\n"
  assert captured.out == ""


def test_a_run_that_cannot_continue_is_status_1(capsys):
  with pytest.raises(SystemExit) as stop, exit_on_user_error():
    raises(RunError("step 3 broke"))
  assert stop.value.code == 1
  assert capsys.readouterr().err == "error: step 3 broke\n"


def test_it_decorates_a_main_and_keeps_its_value():
  assert exit_on_user_error()(lambda value: value)(3) == 3


def test_a_full_disk_names_the_file(capsys):
  full = OSError(errno.ENOSPC, "No space left on device", "runs/x/a.npz")
  with pytest.raises(SystemExit) as stop, exit_on_user_error():
    raises(full)
  assert stop.value.code == 2
  sentence = "error: runs/x/a.npz: No space left on device; "
  assert capsys.readouterr().err.startswith(sentence)


@pytest.mark.parametrize(
  "bug", [ValueError("x"), OSError(errno.EBADF, "x"), RuntimeError("x")]
)
def test_everything_else_passes_through(bug):
  with pytest.raises(type(bug)), exit_on_user_error():
    raises(bug)


def test_ctrl_c_has_no_traceback(capsys):
  with pytest.raises(SystemExit) as stop, exit_on_user_error():
    raise KeyboardInterrupt
  assert stop.value.code == 130
  assert "interrupted" in capsys.readouterr().err


def run(code, **options):
  """Starts a program; it prints `ready` when it is to be disturbed.

  It imports the module alone, without what takes seconds.
  """
  code = f"import sys, time, errors\n{code}"
  return subprocess.Popen(
    [sys.executable, "-c", code],
    stderr=subprocess.PIPE,
    text=True,
    cwd=pathlib.Path(errors.__file__).parent,
    **options,
  )


@pytest.mark.parametrize(
  "prints", ["print('a')", "print('a' * 10**6)", "print('a'); sys.exit(0)"]
)
def test_output_that_nobody_reads_ends_it_in_silence(prints):
  read, write = os.pipe()
  os.close(read)
  with run(f"with errors.exit_on_user_error(): {prints}", stdout=write) as one:
    assert one.stderr is not None and one.stderr.read() == ""
  os.close(write)
  assert one.returncode == 141


def test_another_broken_pipe_is_a_bug():
  with pytest.raises(BrokenPipeError), exit_on_user_error():
    raise BrokenPipeError


@pytest.mark.parametrize(
  ("context", "number", "status"),
  [
    ("ended_by_ctrl_c", signal.SIGINT, -signal.SIGINT),
    ("ended_by_sigterm", signal.SIGTERM, 128 + signal.SIGTERM),
  ],
)
def test_signals_end_it_without_a_traceback(context, number, status):
  code = f"with errors.{context}(): print('ready', flush=True); time.sleep(60)"
  with run(code, stdout=subprocess.PIPE) as one:
    assert one.stdout is not None and one.stderr is not None
    assert one.stdout.readline() == "ready\n"
    one.send_signal(number)
    assert one.stderr.read() == ""
  assert one.returncode == status


def test_handlers_are_as_before_afterwards():
  before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
  with ended_by_ctrl_c(), ended_by_sigterm():
    pass
  assert before == (
    signal.getsignal(signal.SIGINT),
    signal.getsignal(signal.SIGTERM),
  )


def test_did_you_mean_suggests_similar_names_and_equal_endings():
  names = ["sae.width", "sae.l0"]
  assert did_you_mean("sae.wdith", names) == "did you mean sae.width?"
  assert did_you_mean("l0", names, "--") == "did you mean --sae.l0?"
  assert did_you_mean("zebra", names) == ""


def test_first_few_counts_the_rest():
  assert first_few(["a", "b", "c"]) == "a, b, c"
  assert first_few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
  assert first_few(["a", "b"], 1, separator="; ") == "a; and 1 more"
  assert first_few([]) == ""
