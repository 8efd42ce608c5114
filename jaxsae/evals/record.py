"""The file of an evaluation, which a person may have damaged."""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from jaxsae.errors import UserError
from jaxsae.evals.result import DEFINITIONS, VERSION, Result
from jaxsae.files import given_path, refusals_told, whole_file

# What others read of a result besides its name. A figure that is undefined is
# None.
_FIGURES = (
  "tokens",
  "l0",
  "fvu",
  "dead",
  "delta_loss",
  "loss_recovered_zero",
  "loss_recovered_mean",
)


def write(
  results: Mapping[str, Result],
  path: str | os.PathLike[str],
  others: Iterable[Mapping[str, Any]] = (),
  **about: Any,
) -> None:
  """Writes results and facts about them to a JSON file, atomically.

  Args:
    results: the results of `evaluate`.
    path: the file, such as `RUN/eval/STEP.json`; its folders are made.
    others: records of other results, as `Result.to_json` makes them.
    **about: anything that JSON can hold, such as the step and the corpus.

  Raises:
    UserError: the file cannot be written.
  """
  data = {
    "version": VERSION,
    "about": about,
    "definitions": DEFINITIONS,
    "results": [*others, *(result.to_json() for result in results.values())],
  }
  text = json.dumps(data, indent=2, allow_nan=False) + "\n"
  with refusals_told(path), whole_file(given_path(path)) as partial:
    partial.write_text(text)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
  """Returns the content of a file that `evals.write` made.

  Every entry of its `results` has a name and figures.

  Raises:
    UserError: the file is damaged, or something else.
  """
  try:
    found = json.loads(given_path(path).read_text())
    if not isinstance(found["about"], Mapping):
      raise TypeError("`about` is not an object")
    for result in found["results"]:
      _check(result)
    return found
  # Any JSON may be in it, also what is too deep for the parser.
  except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
    raise UserError(
      f"{path} is not the record of an evaluation ({_why(error)}); move it"
      " away and evaluate again."
    ) from error


def _check(result: Any) -> None:
  """Raises TypeError or KeyError unless it is the record of one result."""
  if not isinstance(result["name"], str):
    raise TypeError(f"the name {result['name']!r} is not a text")
  for figure in _FIGURES:
    value = result[figure]
    if value is not None and type(value) not in (int, float):
      raise TypeError(f"{figure} is not a number")


def _why(error: Exception) -> str:
  if isinstance(error, OSError):
    return str(error.strerror or error)
  if isinstance(error, KeyError):
    return f"it has no {error.args[0]}"
  return " ".join(str(error).split()) or type(error).__name__
