"""Every file in which Hugging Face says that a turn ends is read."""

import json

import pytest
from etils import epath

from jaxsae.errors import UserError
from jaxsae.lm.formats import special_ids

NAMES = {"<end>": 7, "<turn>": 8}


def ends(folder):
  return special_ids.turn_ends(epath.Path(folder), 64, NAMES.get)


@pytest.fixture
def write(tmp_path):
  """write("config.json", {…}): writes a file beside the weights."""
  return lambda name, data: (tmp_path / name).write_text(json.dumps(data))


@pytest.mark.parametrize(
  "name, data, expected",
  [
    ("config.json", {"eos_token_id": 5}, (5,)),
    ("config.json", {"eos_token_id": [6, 1, 6]}, (1, 6)),
    ("config.json", {"eos_token_id": None}, ()),
    ("config.json", {"text_config": {"eos_token_id": 5}}, (5,)),
    ("generation_config.json", {"eos_token_id": [1, 6]}, (1, 6)),
    ("generation_config.json", {"eos_token_id": 6}, (6,)),
    ("generation_config.json", {"stop_strings": "<end>"}, (7,)),
    ("generation_config.json", {"stop_strings": ["<turn>", "a b"]}, (8,)),
    ("tokenizer_config.json", {"eos_token": "<end>"}, (7,)),
    ("tokenizer_config.json", {"eos_token": {"content": "<end>"}}, (7,)),
    ("tokenizer_config.json", {"eot_token": "<turn>"}, (8,)),
    ("special_tokens_map.json", {"eos_token": "<end>"}, (7,)),
    ("special_tokens_map.json", {"eos_token": {"content": "<turn>"}}, (8,)),
    ("special_tokens_map.json", {"eos_token": "<other>"}, ()),
  ],
)
def test_the_end_of_a_turn_is_read(tmp_path, write, name, data, expected):
  assert ends(tmp_path) == ()
  write(name, data)
  assert ends(tmp_path) == expected


def test_all_files_count(tmp_path, write):
  write("config.json", {"eos_token_id": 1, "text_config": {"eos_token_id": 2}})
  write("generation_config.json", {"eos_token_id": [1, 6]})
  write("tokenizer_config.json", {"eos_token": "<end>"})
  write("special_tokens_map.json", {"eos_token": "<turn>"})
  assert ends(tmp_path) == (1, 2, 6, 7, 8)


@pytest.mark.parametrize("value", [64, -1, "<eos>", [1, 64], [[1]], 1.0, True])
def test_an_id_that_the_model_lacks_is_refused(tmp_path, write, value):
  write("generation_config.json", {"eos_token_id": value})
  with pytest.raises(
    UserError, match=r"eos_token_id=.*generation_config\.json"
  ):
    ends(tmp_path)


@pytest.mark.parametrize("text", ["[1]", "{", "3"])
def test_a_damaged_file_is_named(tmp_path, text):
  (tmp_path / "generation_config.json").write_text(text)
  with pytest.raises(UserError, match=r"generation_config\.json is not"):
    ends(tmp_path)
