"""Special tokens, as the JSON files beside a model's weights name them.

Hugging Face says in five files which tokens end a turn; people who tune a model
change any of them.
"""

import json
from collections.abc import Callable, Iterator

from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import whole_file
from jaxsae.lm.formats.json_file import read_object

GENERATION = "generation_config.json"


def read(folder: epath.Path, vocab_size: int) -> dict[str, list[int]]:
  """Returns the ids of `"bos"`, `"eos"` and `"pad"` in `config.json`.

  Those that it does not name are left out.

  Raises:
    UserError: an id is not one of the model's.
  """
  found = {}
  for data in _configs(folder):
    for name in ("bos", "eos", "pad"):
      ids = _ids(data, name, vocab_size, folder / "config.json")
      if ids:
        found.setdefault(name, ids)
  return found


def turn_ends(
  folder: epath.Path,
  vocab_size: int,
  id_of: Callable[[str], int | None],
) -> tuple[int, ...]:
  """Returns the ids of all tokens that end a turn, in any of the files.

  Args:
    folder: the directory of the weights.
    vocab_size: number of ids of the model.
    id_of: returns the id of the single token with this text, or None.

  Raises:
    UserError: an id is not one of the model's, or a file is damaged.
  """
  ids = set()
  for data in _configs(folder):
    ids.update(_ids(data, "eos", vocab_size, folder / "config.json"))
  given = read_object(folder / GENERATION)
  ids.update(_ids(given, "eos", vocab_size, folder / GENERATION))
  named = (id_of(text) for text in _texts(folder, given))
  ids.update(i for i in named if i is not None and i < vocab_size)
  return tuple(sorted(ids))


def write_ends(folder: epath.Path, ends: tuple[int, ...]) -> None:
  """Writes the ids of tokens that end a turn, if there are any."""
  if ends:
    with whole_file(folder / GENERATION) as partial:
      partial.write_text(json.dumps({"eos_token_id": ends}) + "\n")


def _configs(folder) -> list[dict]:
  """Returns `config.json`, and the text model's part of a multimodal one."""
  whole = read_object(folder / "config.json")
  text = whole.get("text_config")
  return [whole, text] if isinstance(text, dict) else [whole]


def _ids(data: dict, name: str, vocab_size: int, file) -> list[int]:
  """Returns the ids of one kind of token; none if the file names none."""
  found = data.get(f"{name}_token_id")
  listed = found if isinstance(found, list) else [found]
  ids = [i for i in listed if i is not None]
  for i in ids:
    if type(i) is not int or not 0 <= i < vocab_size:
      raise UserError(
        f"{name}_token_id={found!r} in {file} is not a token of the model, 0 to"
        f" {vocab_size - 1}; correct it, or remove that entry."
      )
  return ids


def _texts(folder, generation: dict) -> Iterator[str]:
  """Yields the texts that end a turn; some may not be a single token."""
  stops = generation.get("stop_strings")
  found = stops if isinstance(stops, list) else [stops]
  for file in ("tokenizer_config.json", "special_tokens_map.json"):
    names = read_object(folder / file)
    found += [names.get("eos_token"), names.get("eot_token")]
  for token in found:
    # A token may be given with its flags.
    text = token.get("content") if isinstance(token, dict) else token
    if isinstance(text, str):
      yield text
