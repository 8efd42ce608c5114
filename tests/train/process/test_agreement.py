"""Processes that differ are told which of them does, and in what."""

import json

import pytest

from jaxsae import pod
from jaxsae.errors import UserError
from jaxsae.train.process import agreement
from tests import pods
from tests.train.toys import small

# Each process changes its own configuration before it starts.
DIFFERING = """
import json, os
from jaxsae import overrides, runs
from jaxsae.train.config import TrainConfig

config = json.load(open(os.environ["CONFIG"]))
if os.environ["JAX_PROCESS_ID"] == "1":
  {change}
runs.main(overrides.from_json(TrainConfig, config))
"""


@pytest.fixture
def two(tmp_path, texts, lm_path):
  return small(tmp_path, texts, lm_path)


def run_two(config, folder, change):
  script = DIFFERING.format(change=change)
  with pods.Pod(config, folder, count=2, devices=2, script=script) as running:
    return running.wait(), running.said(0), running.said(1)


@pytest.mark.slow
def test_another_setting_on_one_host_ends_all_before_anything_is_made(
  two, tmp_path
):
  statuses, *said = run_two(
    two, tmp_path / "two", 'config["sae"]["optim"]["lr"] = 0.5'
  )
  assert statuses == [2, 2]
  for text in said:
    for part in ("--sae.optim.lr is 7e-05", "0.5 in process 1 on"):
      assert part in text
    assert "Traceback" not in text
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_other_text_on_one_host_ends_all(two, tmp_path, texts):
  other = tmp_path / "other"
  other.mkdir()
  for file in texts.iterdir():
    (other / file.name).write_text(file.read_text() + " and more")
  statuses, *said = run_two(
    two, tmp_path / "two", f'config["data"]["source"] = {str(other)!r}'
  )
  assert statuses == [2, 2]
  assert all("the text of --data.source" in text for text in said)
  assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
def test_text_that_one_host_lacks_ends_all(two, tmp_path):
  statuses, *said = run_two(
    two, tmp_path / "two", 'config["data"]["source"] = "/nowhere"'
  )
  assert statuses == [2, 2]
  assert "in process 1: " in said[0] and "/nowhere" in said[0]


def gathered(monkeypatch, *facts):
  texts = [
    json.dumps({"host": f"host{i}", "facts": of}) for i, of in enumerate(facts)
  ]
  monkeypatch.setattr(pod, "gather_texts", lambda text: texts)


def test_the_odd_ones_out_are_named(monkeypatch):
  gathered(monkeypatch, {"a": "1", "b": "x"}, {"a": "2", "b": "x"}, {"a": "2"})
  with pytest.raises(UserError) as refused:
    agreement.check({})
  for part in ("a is 2, but 1 in process 0 on host0", "b is x, but nothing in"):
    assert part in str(refused.value)


def test_equal_processes_go_on(monkeypatch):
  gathered(monkeypatch, {"a": "1"}, {"a": "1"})
  agreement.check({})


def test_settings_code_and_packages_are_compared_and_places_are_not(config):
  facts = agreement.of_program(config)
  for name in ("--sae.widths", "package jax", "code of jaxsae", "XLA_FLAGS"):
    assert name in facts
  assert not {"--lm", "--data.source", "--data.cache"} & facts.keys()
  assert len(facts["code of jaxsae"]) == 12
