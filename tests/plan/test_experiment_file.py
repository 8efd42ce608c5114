"""Experiment files are read without being run."""

import sys

import pytest

from jaxsae.errors import UserError
from jaxsae.plan import compiler_process
from jaxsae.plan import experiment_file as experiments
from jaxsae.plan.experiment_file import Options


@pytest.fixture(autouse=True)
def restore_sys(monkeypatch):
  """Restores sys.argv and sys.path, which reading a file changes."""
  monkeypatch.setattr(sys, "argv", list(sys.argv))
  monkeypatch.setattr(sys, "path", list(sys.path))


def test_a_file_with_a_config_is_one_run_with_its_overrides(experiment):
  found = experiments.read(
    str(experiment), ["--topology=v5e:2x4", "--mesh.model=4", "--search"]
  )
  ((name, config),) = found.configs.items()
  assert name == "toy" and config.mesh.model == 4
  assert found.options == Options(topology="v5e:2x4", search=True)


def test_a_file_with_configs_is_all_its_runs(sweep):
  found = experiments.read(str(sweep), ["--tokens=4096"])
  assert list(found.configs) == ["low", "high", "wide"]
  assert {config.tokens for config in found.configs.values()} == {4096}


def test_one_run_is_selected_by_name(sweep):
  found = experiments.read(str(sweep), ["--only=wide"])
  assert list(found.configs) == ["wide"]
  with pytest.raises(UserError, match="did you mean wide"):
    experiments.read(str(sweep), ["--only=wid"])


def test_the_shipped_grids_are_read(monkeypatch):
  found = experiments.read("experiments/gemma_scope_2b.py", [])
  assert "16k" in found.configs and len(found.configs) == 9


def test_an_experiment_can_import_modules_beside_it(experiment):
  (experiment.parent / "beside_it.py").write_text("rows = 32\n")
  text = experiment.read_text().replace("rows=16", "rows=beside_it.rows")
  experiment.write_text(f"import beside_it\n{text}")
  config = experiments.read(str(experiment), []).configs["toy"]
  assert config.bucket.rows == 32


@pytest.mark.parametrize(
  ("name", "text", "says"),
  [
    ("gone.py", None, "no experiment file"),
    ("run.txt", "", ".py"),
    ("empty.py", "", "neither"),
    ("other.py", "config = 3", "neither"),
    ("none.py", "configs = dict", "neither"),
  ],
)
def test_a_file_without_runs_is_refused(tmp_path, name, text, says):
  path = tmp_path / name
  if text is not None:
    path.write_text(text)
  with pytest.raises(UserError) as error:
    experiments.read(str(path), [])
  assert says in str(error.value) and name in str(error.value)


def test_the_compiler_is_found_at_the_path_in_the_environment(tmp_path):
  library = tmp_path / "libtpu.so"
  library.touch()
  made = compiler_process.environment(
    {compiler_process.LIBRARY: str(library), "HOME": "/root"}
  )
  assert (
    made[compiler_process.LIBRARY] == str(library) and made["HOME"] == "/root"
  )
  assert made["JAX_PLATFORMS"] == "cpu" and made["TPU_SKIP_MDS_QUERY"] == "1"


def test_a_missing_compiler_is_named(tmp_path):
  with pytest.raises(
    UserError, match=r"TPU_LIBRARY_PATH=\S*gone\.so.*libtpu\.so"
  ):
    compiler_process.environment(
      {compiler_process.LIBRARY: str(tmp_path / "gone.so")}
    )


def test_the_error_without_a_compiler_says_what_to_install(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(sys, "prefix", str(tmp_path))
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(UserError, match=r"jaxsae\[tpu\]"):
    compiler_process.environment({})


def test_the_compiler_that_make_test_installs_is_found(tmp_path, monkeypatch):
  library = tmp_path / "tpu/libtpu/libtpu.so"
  library.parent.mkdir(parents=True)
  library.touch()
  monkeypatch.setattr(sys, "prefix", str(tmp_path))
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  assert compiler_process.environment({})[compiler_process.LIBRARY] == str(
    library
  )
