"""A folder belongs to one configuration."""

import json

import pytest

from jaxsae import overrides
from jaxsae.data import TokenPolicy
from jaxsae.errors import UserError
from jaxsae.mesh import MeshConfig
from jaxsae.train.config.bucket import BucketConfig
from jaxsae.train.process import workdir

POLICY = TokenPolicy(tokenizer="abc", bos=2, eos=1, context=16)


def test_the_same_configuration_may_continue(config, replace):
  path = workdir.claim(config, POLICY)
  assert workdir.claim(config, POLICY) == path
  assert workdir.read_config(path) == config


def test_settings_that_do_not_change_the_result_may_change(config, replace):
  workdir.claim(config, POLICY)
  other = replace(
    config,
    mesh=MeshConfig(2, 2),
    checkpoint_every=7,
    eval__batch=4,
    not_finite="skip",
  )
  workdir.claim(other, POLICY)


@pytest.mark.parametrize(
  ("change", "named"),
  [
    ({"tokens": 2000}, "tokens was 3072 and is 2000"),
    ({"sae__widths": (128,)}, "sae.widths was 64 and is 128"),
    ({"data__seed": 3}, "data.seed was 0 and is 3"),
  ],
)
def test_another_configuration_is_refused(config, replace, change, named):
  workdir.claim(config, POLICY)
  with pytest.raises(UserError, match=named):
    workdir.claim(replace(config, **change), POLICY)


def test_the_refusal_lists_the_settings_that_may_change(config, replace):
  workdir.claim(config, POLICY)
  other = replace(config, tokens=2000, data__seed=3, keep_every=4)
  with pytest.raises(UserError) as refused:
    workdir.claim(other, POLICY)
  said, free = str(refused.value).split("Only these may change: ")
  assert "tokens was 3072 and is 2000; data.seed was 0 and is 3" in said
  assert "keep_every" not in said
  for name in ("mesh.*", "eval.*", "checkpoint_every", "keep_every"):
    assert name in free


def test_places_may_change_and_are_saved(config, replace):
  path = workdir.claim(config, POLICY)
  moved = replace(config, lm="elsewhere", data__source="/other", fsdp=True)
  workdir.claim(moved, POLICY)
  workdir.update(moved)
  assert workdir.read_config(path) == moved


def test_a_run_may_grow_where_the_rate_is_constant(config, replace):
  workdir.claim(config, POLICY)
  longer = replace(config, tokens=9000)
  workdir.claim(longer, POLICY)
  assert not workdir.is_complete(longer)


def test_a_run_whose_rate_decays_may_not_grow(config, replace):
  config = replace(config, sae__optim__lr_decay=0.2)
  workdir.claim(config, POLICY)
  with pytest.raises(UserError, match="tokens was 3072 and is 9000"):
    workdir.claim(replace(config, tokens=9000), POLICY)


def test_a_run_keeps_the_sizes_of_its_bucket(config, replace):
  unknown = replace(config, bucket=BucketConfig())
  assert workdir.with_saved_bucket(unknown) == unknown
  workdir.claim(config, POLICY)
  assert workdir.with_saved_bucket(unknown).bucket == config.bucket
  other = replace(config, bucket=BucketConfig(rows=16))
  with pytest.raises(UserError, match=r"bucket\.rows was 8 and is 16"):
    workdir.claim(workdir.with_saved_bucket(other), POLICY)


def test_what_is_published_may_be_said_in_numbers(config, replace):
  workdir.claim(replace(config, sae__wake_after=None), POLICY)
  workdir.claim(replace(config, sae__wake_after="published"), POLICY)
  with pytest.raises(UserError, match="wake_after was None and is 5"):
    workdir.claim(replace(config, sae__wake_after=5), POLICY)


def test_another_tokenizer_is_refused(config):
  workdir.claim(config, POLICY)
  other = TokenPolicy(tokenizer="xyz", bos=2, eos=1, context=16)
  with pytest.raises(UserError, match="tokenizer was 'abc'"):
    workdir.claim(config, other)


@pytest.mark.parametrize("text", ["{", "[]", '{"workdir": 3}'])
def test_a_damaged_record_is_named(config, text):
  path = workdir.claim(config, POLICY)
  (path / "config.json").write_text(text)
  with pytest.raises(UserError, match=r"config\.json"):
    workdir.read_config(path)


def test_records_are_json(config):
  path = workdir.claim(config, POLICY)
  assert json.loads((path / "policy.json").read_text())["context"] == 16
  assert not list(path.glob("*.partial"))


def test_a_run_is_complete_once_its_last_step_is_evaluated(config, replace):
  assert not workdir.is_complete(config)
  path = workdir.claim(config, POLICY)
  assert not workdir.is_complete(config)
  names = [name for stack in config.stacks for name in stack.names]
  figures = "tokens l0 fvu dead delta_loss loss_recovered_zero"
  measured = dict.fromkeys([*figures.split(), "loss_recovered_mean"], 1.0)
  results = [{"name": name, **measured} for name in names]
  settings = overrides.to_json(config.eval)
  record = {"about": {"settings": settings}, "results": results}
  workdir.write_json(path / "eval" / "5.json", record)
  assert not workdir.is_complete(config)
  workdir.write_json(
    path / "eval" / "6.json", record | {"results": results[1:]}
  )
  assert not workdir.is_complete(config)
  workdir.write_json(path / "eval" / "6.json", record)
  assert workdir.is_complete(replace(config, mesh__model=2))
  assert not workdir.is_complete(replace(config, eval__batches=3))
  with pytest.raises(UserError, match="tokens was 3072 and is 2000"):
    workdir.is_complete(replace(config, tokens=2000))
