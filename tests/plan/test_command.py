"""`jaxsae plan` works from end to end, with the TPU's own compiler."""

import json
import sys

import pytest

from jaxsae import cli
from jaxsae.errors import UserError
from jaxsae.plan import command, compiler_process, prices, topology
from tests.plan.here import devices

pytestmark = pytest.mark.slow

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
  entries = json.loads(prices.SHIPPED.read_text())
  entries[1] |= {"on_demand": 1e6, "currency": "CHF", "source": "a dream"}
  table = tmp_path / "prices.json"
  table.write_text(json.dumps(entries))
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
  check_agreement(found)
  check_stages(found, out)


def check_agreement(found):
  """Checks that each figure follows from the others."""
  step, tokens = found["step_seconds_roofline"], found["tokens_per_step"]
  assert tokens == 2 * 16 * 16 and found["steps"] == 1954
  assert found["tokens_per_second"] == pytest.approx(tokens / step)
  hours = 1954 * step / 3600 * found["chips"]
  assert found["chip_hours"] == pytest.approx(hours)
  assert found["cost"] == pytest.approx(1e6 * hours)
  memory = found["hbm_by_owner"]
  assert sum(memory.values()) == pytest.approx(found["hbm_capacity_bytes"])
  used = sum(memory.values()) - memory["headroom"]
  assert used == pytest.approx(found["hbm_bytes_per_device"])
  sent = sum(one["bytes"] for one in found["collectives"])
  assert sent == found["collective_bytes_per_device_per_step"]
  assert {one["axis"] for one in found["collectives"]} <= {
    "data",
    "model",
    "data+model",
  }


def check_stages(found, out):
  """Checks what comes before and after training."""
  evaluation = found["evaluation"]
  assert evaluation["fits"] is True and "So does its evaluation" in out
  assert 0 < evaluation["hbm_bytes_per_device"] < found["hbm_capacity_bytes"]
  assert evaluation["flops"] > 0 and evaluation["compile_seconds"] > 0
  kinds = [stage["name"].split()[0] for stage in found["stages"]]
  assert kinds == ["tokenising", "evaluation", "checkpoints", "export"]
  for stage in found["stages"]:
    assert stage["name"].split()[0] in out and stage["seconds"] > 0
    if stage["name"] in ("tokenising", "evaluation", "export"):
      hours = stage["seconds"] / 3600
      assert stage["cost"] == pytest.approx(1e6 * hours * found["chips"])
  assert found["storage_price"]["gib_month"] > 0 and "Assumed" in out
  assert found["stages"][1]["seconds"] == evaluation["seconds"]
  assert found["stages"][3]["bytes"] == found["export_bytes"]
  kept = found["stages"][2]
  assert kept["bytes"] == 2 * found["checkpoint_bytes"]
  month = kept["bytes"] / 2**30 * found["storage_price"]["gib_month"]
  assert kept["cost_per_month"] == pytest.approx(month)


def test_a_model_that_does_not_fit(plan, experiment, tmp_path, lm_path):
  """The vocabulary has 2²⁸ words; with one chip there is nothing to change."""
  sizes = json.loads((lm_path / "config.json").read_text())
  (tmp_path / "large").mkdir()
  config = tmp_path / "large" / "config.json"
  config.write_text(json.dumps(sizes | {"vocab_size": 2**28}))
  status, out, err, found = plan(
    experiment,
    f"--lm={config.parent}",
    "--topology=v5e:1x1",
    "--bucket.microbatches=1",
    "--bucket.rows=17",
    "--bucket.update_tokens=17",
  )
  assert status == 0, err
  assert "It does not fit" in out and "use more chips" in out
  assert found["fits"] is False and found["tries"] == []
  assert found["evaluation"]["fits"] is None  # there will be none
  assert found["hbm_bytes_per_device"] > found["hbm_capacity_bytes"]
  assert found["hbm_by_owner"]["headroom"] < 0
  assert found["collective_bytes_per_device_per_step"] is None


def test_two_slices_send_bytes_to_each_other(plan, experiment):
  status, _, err, found = plan(
    experiment, "--topology=v5e:2x2", "--slices=2", "--mesh.model=2"
  )
  assert status == 0, err
  assert (found["slices"], found["devices"]) == (2, 8)
  between = [
    one["bytes"] for one in found["collectives"] if one["axis"] == "slices"
  ]
  assert between and between[0] > 0
  assert "between slices" in [part["name"] for part in found["parts"]]


@pytest.fixture
def here(monkeypatch, tmp_path):
  """Runs `jaxsae plan` in this process, with local devices as the slice's."""
  monkeypatch.setattr(sys, "argv", list(sys.argv))
  monkeypatch.setattr(sys, "path", list(sys.path))
  monkeypatch.setenv("TPU_LIBRARY_PATH", str(tmp_path / "libtpu/libtpu.so"))
  count = {"v5e:2x4": 8, "v5e:2x2": 4, "v6e:2x2": 4}
  monkeypatch.setattr(
    topology,
    "find_devices",
    lambda slices: devices(count[slices.topology] * slices.count),
  )

  def run(*words):
    file = tmp_path / "plan.json"
    command.main([*map(str, words), f"--json={file}"])
    return json.loads(file.read_text())

  return run


def test_a_sweep_is_summed_and_shared_among_machines(here, sweep, capsys):
  found = here(sweep, "--topology=v5e:2x4", "--at_once=2", "--compile=false")
  assert list(found["runs"]) == ["low", "high", "wide"]
  assert all(run["fits"] is None for run in found["runs"].values())
  costs = [run["cost"] for run in found["runs"].values()]
  assert found["cost"] == pytest.approx(sum(costs))
  assert found["at_once"] == 2 and len(found["shares"]) == 2
  assert found["chip_hours_without_sharing"] > 0
  out = capsys.readouterr().out
  assert "Prediction for 3 runs" in out and "With 2 at once" in out
  assert "run of its own" in out


def test_slices_are_compared(here, experiment, capsys):
  found = here(
    experiment,
    "--topology=v5e:2x4",
    "--topologies=v5e:2x2,v6e:2x2",
    "--compile=false",
  )
  assert list(found["plans"]) == ["v5e:2x4", "v5e:2x2", "v6e:2x2"]
  kinds = [plan["device_kind"] for plan in found["plans"].values()]
  assert kinds == ["TPU v5 lite", "TPU v5 lite", "TPU v6 lite"]
  assert "Compared" in capsys.readouterr().out


def test_a_search_prints_flags_to_add(here, experiment, capsys):
  found = here(experiment, "--topology=v5e:2x4", "--search")
  assert found["fits"] is True
  (best, *_) = found["tries"]
  assert best["step_seconds_roofline"] == found["step_seconds_roofline"]
  assert any(flag.startswith("--mesh.model=") for flag in best["flags"])
  assert "Searched" in capsys.readouterr().out


def test_autoencoders_without_a_possible_placement(plan, experiment):
  status, out, err, found = plan(
    experiment, "--topology=v5e:2x4", "--sae.widths=1999999999"
  )
  assert status == 0, err
  assert found["fits"] is False and "No placement" in found["misfit"]
  assert found["step_seconds_roofline"] is None and found["cost"] is None
  assert "It does not fit: No placement" in out


@pytest.mark.parametrize(
  ("words", "says"),
  [
    ([], ["--topology="]),
    (["--topology=v5p:3x5x7"], ["v5p:3x5x7", "2x2x1"]),
    (["--topology=v9:2x2"], ["v9:2x2", "tpu7x"]),
    (["--topology=v5e:2x4", "--mesh.model=3"], ["--mesh.model=3", "8 devices"]),
    (["--topology=v5e:2x4", "--sae.wdiths=9"], ["--sae.widths"]),
    (["--topology=v5e:2x4", "--bucket.rows=4"], ["bucket.rows=4"]),
    (["--topology=v5e:2x4", "--prices=nowhere"], ["nowhere"]),
  ],
)
def test_mistakes_are_one_sentence(here, experiment, words, says):
  with pytest.raises(UserError) as error:
    here(experiment, *words)
  for word in says:
    assert word in str(error.value)


def test_a_place_for_the_figures_is_tried_before_compiling(
  experiment, monkeypatch
):
  monkeypatch.setattr(command, "make", None)
  words = ["--topology=v5e:2x4", "--json=/proc/x/p.json"]
  with pytest.raises(UserError, match="--json=FILE") as error:
    command.main([str(experiment), *words])
  assert "/proc/x/p.json" in str(error.value)


@pytest.mark.parametrize("words", [["--help"], ["EXPERIMENT", "--help"], []])
def test_help_needs_no_compiler(experiment, words, monkeypatch, capsys):
  monkeypatch.setattr(compiler_process, "run", None)
  given = [str(experiment) if word == "EXPERIMENT" else word for word in words]
  monkeypatch.setattr(sys, "argv", ["jaxsae", "plan", *given])
  with pytest.raises(SystemExit) as stop:
    cli.main()
  assert stop.value.code == (0 if words else 2)
  said = capsys.readouterr().out
  assert "usage: jaxsae plan" in said and "--topology=" in said


def test_a_search_needs_a_single_run(here, sweep):
  with pytest.raises(UserError, match="--only=low"):
    here(sweep, "--topology=v5e:2x4", "--search")


def test_the_command_line_reports_a_mistake_with_status_2(plan, tmp_path):
  status, out, err, found = plan(tmp_path / "gone.py", "--topology=v5e:2x4")
  assert (status, out, found) == (2, "", None)
  assert err.startswith("error: There is no experiment file")
  assert err.count("\n") == 1


def test_a_model_axis_across_slices_is_refused(plan, experiment):
  words = ("--topology=v5e:2x2", "--slices=2", "--mesh.model=8")
  status, out, err, found = plan(experiment, *words)
  assert (status, out, found) == (2, "", None)
  assert "--mesh.model=8 does not divide the 4 devices of one slice" in err
