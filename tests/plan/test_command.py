"""`jaxsae plan` with the TPU's own compiler, from end to end."""

import json

import pytest

from jaxsae.errors import UserError
from jaxsae.plan import command, money, topology
from tests.plan.here import devices

NUMBERS = (
  "hbm_bytes_per_device",
  "hbm_capacity_bytes",
  "flops_per_device_per_step",
  "collective_bytes_per_device_per_step",
  "tokens_per_step",
  "step_seconds_roofline",
  "tokens_per_second",
  "chip_hours",
  "cost",
)


def test_a_run_that_fits(plan, experiment, tmp_path):
  prices = json.loads(money.SHIPPED.read_text())
  prices[1] |= {"on_demand": 1e6, "currency": "CHF", "source": "a dream"}
  table = tmp_path / "prices.json"
  table.write_text(json.dumps(prices))
  status, out, err, found = plan(
    experiment,
    "--topology=v5e:2x4",
    "--mesh.model=2",
    f"--prices={table}",
  )
  assert status == 0, err
  assert "It fits" in out and "Prediction" in out and "CHF" in out
  assert "a dream" in out and err.count("\n") == 1  # what is under way
  assert found["fits"] is True
  assert (found["devices"], found["chips"]) == (8, 8)
  assert (found["topology"], found["slices"]) == ("v5e:2x4", 1)
  assert found["device_kind"] == "TPU v5 lite"
  assert found["mesh"] == {"data": 4, "model": 2}
  assert found["currency"] == "CHF" and found["price"]["source"] == "a dream"
  assert all(found[name] > 0 for name in NUMBERS)
  agrees(found)


def agrees(found):
  """One figure follows from the others."""
  step, tokens = found["step_seconds_roofline"], found["tokens_per_step"]
  assert tokens == 2 * 16 * 16 and found["steps"] == 1954
  assert found["tokens_per_second"] == pytest.approx(tokens / step)
  hours = 1954 * step / 3600 * found["chips"]
  assert found["chip_hours"] == pytest.approx(hours)
  assert found["cost"] == pytest.approx(1e6 * hours)
  owners = found["hbm_by_owner"]
  assert sum(owners.values()) == pytest.approx(found["hbm_capacity_bytes"])
  taken = sum(owners.values()) - owners["headroom"]
  assert taken == pytest.approx(found["hbm_bytes_per_device"])
  sent = sum(one["bytes"] for one in found["collectives"])
  assert sent == found["collective_bytes_per_device_per_step"]
  assert {one["axis"] for one in found["collectives"]} <= {
    "data",
    "model",
    "data+model",
  }


def test_a_bucket_that_does_not_fit(plan, experiment):
  """It is so large that nothing that is tried would help."""
  status, out, err, found = plan(
    experiment,
    "--topology=v5e:2x4",
    "--bucket.microbatches=32768",
    "--bucket.rows=8192",
    "--bucket.update_tokens=8388608",
    "--bucket.dtype=float32",
  )
  assert status == 0, err
  assert "It does not fit" in out and "use more chips" in out
  assert found["fits"] is False and found["tries"] == []
  assert found["hbm_bytes_per_device"] > found["hbm_capacity_bytes"]
  assert found["hbm_by_owner"]["headroom"] < 0
  assert found["collective_bytes_per_device_per_step"] is None


def test_two_slices_send_between_them(plan, experiment):
  status, out, err, found = plan(
    experiment, "--topology=v5e:2x2", "--slices=2", "--mesh.model=2"
  )
  assert status == 0, err
  assert (found["slices"], found["devices"]) == (2, 8)
  between = [
    one["bytes"] for one in found["collectives"] if one["axis"] == "slices"
  ]
  assert between and between[0] > 0
  assert "between slices" in [part["name"] for part in found["parts"]]


@pytest.mark.parametrize(
  ("words", "says"),
  [
    ([], ["--topology="]),
    (["--topology=v5p:3x5x7"], ["v5p:3x5x7", "2x2x1"]),
    (["--topology=v9:2x2"], ["v9:2x2", "tpu7x"]),
    (["--topology=v5e:2x4", "--mesh.model=3"], ["--mesh.model=3", "8 devices"]),
    (["--topology=v5e:2x4", "--sae.wdiths=9"], ["--sae.widths"]),
    (["--topology=v5e:2x4", "--bucket.rows=4"], ["bucket.rows=4"]),
    (
      ["--topology=v5e:2x2", "--slices=2", "--mesh.model=8"],
      ["--mesh.model=8", "4 devices"],
    ),
    (["--topology=v5e:2x4", "--prices=nowhere"], ["nowhere"]),
  ],
)
def test_mistakes_are_one_sentence(experiment, words, says, monkeypatch):
  """In this process: up to what they are about, nothing is compiled."""
  kinds = {"v5e:2x4": 8, "v5e:2x2": 4}
  monkeypatch.setattr(
    topology,
    "find_devices",
    lambda slices: devices(kinds[slices.topology] * slices.count),
  )
  with pytest.raises(UserError) as error:
    command.main([str(experiment), *words])
  for word in says:
    assert word in str(error.value)


def test_the_command_line_reports_a_mistake_with_status_2(plan, tmp_path):
  status, out, err, found = plan(tmp_path / "gone.py", "--topology=v5e:2x4")
  assert (status, out, found) == (2, "", None)
  assert err.startswith("error: There is no experiment file")
  assert err.count("\n") == 1
