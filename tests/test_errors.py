"""An entry point ends with one line for a user's mistake, else a traceback."""

import errno

import pytest

from jaxsae.errors import (
  RunError,
  UserError,
  did_you_mean,
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
