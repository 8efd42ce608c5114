"""The page shows every figure and its control, and trusts no text."""

import html
import re

import pytest

from jaxsae.app import evaluation
from jaxsae.errors import UserError

CONTROL = {"tokens": 9, "l0": 12.0, "fvu": 0.75, "delta_loss": 4.0, "kl": None}


def record(name="resid.3/2048/l0_12", **given):
  usual = {
    "name": name,
    "site": "resid.3",
    "width": 2048,
    "l0": 12.5,
    "fvu": 0.25,
    "delta_loss": -0.125,
    "dead": 0.0625,
    "intervals": {"fvu": [0.2, 0.3], "delta_loss": [None, None]},
    "controls": {"pca": CONTROL, "random_encoder": CONTROL | {"fvu": 0.9}},
  }
  return usual | given


def text_of(page):
  return html.unescape(re.sub("<[^>]*>", " ", page))


def test_figures_intervals_and_controls_are_shown():
  text = text_of(evaluation.render({"runs/a": [record()]}))
  for shown in ("2,048", "12.5", "0.250", "0.200 to 0.300", "−0.1250", "6.2%"):
    assert shown in text, shown
  for shown in ("pca", "0.750", "random encoder", "0.900", "runs/a"):
    assert shown in text, shown


def test_each_autoencoder_and_control_is_a_point_of_both_plots():
  page = evaluation.render({"a": [record(), record("b", l0=30.0)], "c": []})
  assert page.count("<circle") == 4
  assert page.count('class="control set') == 4  # two, once each, in two plots
  assert page.count('class="interval"') == 2  # of FVU alone


def test_what_is_not_known_is_left_out():
  bare = {"name": "old", "site": "mlp.1", "l0": 3.0, "fvu": None}
  page = evaluation.render({"a": [bare | {"delta_loss": 1.0}]})
  assert page.count("<circle") == 1
  assert "–" in text_of(page)
  assert "<svg" in evaluation.render({"nothing": []})


def test_points_stay_within_the_plot():
  far = record(controls={"pca": CONTROL | {"delta_loss": 1e6, "fvu": 1e3}})
  page = evaluation.render({"a": [far]})
  heights = [float(y) for y in re.findall(r'd="M[\d.]+ (-?[\d.]+)l7', page)]
  assert len(heights) == 2
  assert all(0 <= y <= 220 for y in heights)


@pytest.mark.parametrize("field", ["name", "site"])
def test_hostile_text_is_shown_as_text(field):
  hostile = "<script>alert(1)</script>\u202e\"'</title>"
  page = evaluation.render({hostile: [record(**{field: hostile})]})
  assert "<script" not in page and "\u202e" not in page
  assert "script-src" not in page and "default-src 'none'" in page


def test_a_place_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match="file"):
    evaluation.write({}, tmp_path / "file" / "index.html")
