"""What a plan says of the cost, before anything is created."""

import json

import pytest

PLAN = {
  "fits": True,
  "devices": 4,
  "device_kind": "TPU v5",
  "hbm_bytes_per_device": 20 * 2**30,
  "hbm_capacity_bytes": 95 * 2**30,
  "flops_per_device_per_step": 1e12,
  "collective_bytes_per_device_per_step": {},
  "tokens_per_step": 4096,
  "step_seconds_roofline": 1.0,
  "tokens_per_second": 12345.6,
  "chips": 4,
  "chip_hours": 40.0,
  "chip_hours_without_overlap": 60.0,
  "cost": 168.0,
  "cost_without_overlap": 252.0,
  "currency": "USD",
  "topology": "v5p:2x2x1",
  "slices": 1,
}


@pytest.fixture
def create(cloud, launch, tmp_path):
  """`create("--max-cost=5", cost=9)`: with a plan that says so."""

  def call(*words, **changes):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(PLAN | changes))
    where = ("--topology=v5p:2x2x1", "--zone=us-east5-a", "--poll=0.01")
    return launch("create", "a", *where, f"--plan={file}", *words)

  return call


def test_the_estimate_is_told(create):
  status, out, _ = create()
  assert status == 0
  assert "20.0 of 95.0 GiB" in out
  assert "predicted: 10.0 to 15.0 hours on 4 chips" in out
  assert "40.0 to 60.0 chip-hours" in out
  assert "predicted cost: 168.00 to 252.00 USD" in out


def test_a_plan_that_was_not_compiled_says_nothing_of_memory(create):
  status, out, _ = create(hbm_bytes_per_device=None, fits=None)
  assert status == 0 and "not compiled" in out


@pytest.mark.parametrize(
  "changes, told",
  [
    ({"fits": False}, "does not fit v5p:2x2x1"),
    ({"topology": "v5p:2x2x2"}, "1 x v5p:2x2x2"),
    ({"slices": 2}, "2 x v5p:2x2x1"),
  ],
)
def test_a_plan_that_is_of_something_else(create, cloud, changes, told):
  status, _, err = create("--yes", **changes)
  assert status == 2 and told in err and cloud.calls == []


@pytest.mark.parametrize(
  "changes, told",
  [
    ({}, "168.00 to 252.00 USD"),
    ({"cost": None}, "does not know"),
    ({"currency": "EUR"}, "EUR, not in US dollars"),
  ],
)
def test_a_limit_stands_until_somebody_agrees(create, cloud, changes, told):
  status, _, err = create("--max-cost=100", **changes)
  assert status == 2 and told in err and "--yes" in err and cloud.calls == []
  assert create("--max-cost=100", "--yes", **changes)[0] == 0


def test_a_limit_has_to_suffice_if_nothing_overlaps(create):
  assert create("--max-cost=200")[0] == 2
  assert create("--max-cost=252")[0] == 0


def test_without_a_price_it_is_said(create):
  assert "predicted cost: not known" in create(cost=None)[1]


def test_without_a_plan_nothing_is_known(cloud, launch):
  where = ("create", "a", "--topology=v5p:2x2x1", "--zone=us-east5-a")
  status, _, err = launch(*where, "--max-cost=9")
  assert status == 2 and "--plan" in err and "--yes" in err
  assert cloud.calls == []
  status, out, _ = launch(*where, "--max-cost=9", "--yes", "--poll=0.01")
  assert status == 0 and "no estimate" in out


@pytest.mark.parametrize(
  "text, told",
  [(None, "No such file"), ("{", "not JSON"), ("{}", "fits, hbm")],
)
def test_a_file_that_is_no_plan(cloud, launch, tmp_path, text, told):
  file = tmp_path / "plan.json"
  if text is not None:
    file.write_text(text)
  status, _, err = launch(
    "create",
    "a",
    "--topology=v5p:2x2x1",
    "--zone=us-east5-a",
    f"--plan={file}",
  )
  assert status == 2 and told in err and cloud.calls == []
