"""JSON files beside a model's weights."""

import json
from typing import Any

from etils import epath

from jaxsae.errors import UserError


def read_json(file: epath.Path) -> Any:
  """Reads a JSON file."""
  try:
    return json.loads(file.read_bytes().decode())
  except (ValueError, RecursionError) as error:
    raise UserError(f"{file} is not JSON: {error}.") from error


def read_object(file: epath.Path) -> dict[str, Any]:
  """Reads a JSON object; of a file that is not there, an empty one."""
  if not file.exists():
    return {}
  found = read_json(file)
  if not isinstance(found, dict):
    raise UserError(f"{file} is not a JSON object; download it again.")
  return found
