"""The file of an evaluation is read, or refused in a sentence."""

import json

import pytest

from jaxsae import evals
from jaxsae.errors import UserError

FIGURES = (
  "tokens l0 fvu dead delta_loss loss_recovered_zero loss_recovered_mean"
).split()
RESULT = {"name": "a", "site": "resid.0", **dict.fromkeys(FIGURES, 1.5)}


def test_a_record_is_read_as_it_is(tmp_path):
  content = {"about": {"step": 6}, "results": [RESULT | {"fvu": None}]}
  (tmp_path / "6.json").write_text(json.dumps(content))
  assert evals.read(tmp_path / "6.json") == content


@pytest.mark.parametrize(
  "text",
  [
    b"",
    b"{",
    b"null",
    b"[]",
    b"3",
    b'"results"',
    b"{}",
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"about": {}, "results": null}',
    b'{"about": {}, "results": {"a": 1}}',
    b'{"about": [], "results": []}',
    b'{"about": {}, "results": [7]}',
    b'{"about": {}, "results": [{}]}',
    json.dumps({"about": {}, "results": [{"name": "a"}]}).encode(),
    json.dumps({"about": {}, "results": [RESULT | {"name": []}]}).encode(),
    json.dumps({"about": {}, "results": [RESULT | {"l0": "x"}]}).encode(),
    json.dumps({"about": {}, "results": [RESULT | {"l0": True}]}).encode(),
  ],
)
def test_anything_else_is_refused_with_its_place(tmp_path, text):
  file = tmp_path / "eval" / "6.json"
  file.parent.mkdir()
  file.write_bytes(text)
  with pytest.raises(UserError, match=r"6\.json") as caught:
    evals.read(file)
  said = str(caught.value)
  assert str(file) in said and "move it away" in said and "\n" not in said


def test_a_folder_in_its_place_is_refused(tmp_path):
  with pytest.raises(UserError, match="is not the record of an evaluation"):
    evals.read(tmp_path)
