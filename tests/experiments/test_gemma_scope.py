"""The grids have every published autoencoder, and train at toy size."""

import collections
import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import pytest

from jaxsae.lm.weights import read_sizes
from jaxsae.runs.flops import RunFlops, run_flops
from tests.train.toys import init_state

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
NAMES = ["gemma_scope_2b", "gemma_scope_9b", "gemma_scope_27b"]
RUNS = {"gemma_scope_2b": 9, "gemma_scope_9b": 29, "gemma_scope_27b": 1}
B = 10**9

# Table 1 of the paper (arXiv 2408.05147): of each model and site, the layers
# and the tokens of each width.
ALL_2B, ALL_9B = range(26), range(42)
EACH_2B = {2**14: (ALL_2B, 4 * B), 2**16: (ALL_2B, 8 * B)}
EACH_9B = {2**14: (ALL_9B, 4 * B), 2**17: (ALL_9B, 8 * B)}
TUNED = {2**14: ((9, 20, 31), 4 * B), 2**17: ((9, 20, 31), 8 * B)}
PUBLISHED = {
  ("gemma2-2b-pt", "attn"): EACH_2B,
  ("gemma2-2b-pt", "mlp"): EACH_2B,
  ("gemma2-2b-pt", "transcoder"): {2**14: (ALL_2B, 4 * B)},
  ("gemma2-2b-pt", "resid"): EACH_2B
  | {2**n: ((12,), 8 * B) for n in (15, 17, 18, 19)}
  | {2**20: ((5, 12, 19), 16 * B)},
  ("gemma2-9b-pt", "attn"): EACH_9B,
  ("gemma2-9b-pt", "mlp"): EACH_9B,
  ("gemma2-9b-pt", "resid"): EACH_9B
  | {2**n: ((20,), 8 * B) for n in (15, 16, 18, 19)}
  | {2**20: ((9, 20, 31), 16 * B)},
  ("gemma2-27b-pt", "resid"): {2**17: ((10, 22, 34), 8 * B)},
  ("gemma2-9b-it", "resid"): TUNED,
}

# D of the residual stream and the MLP's output, and D of the heads' output.
SIZES = {
  "gemma2-2b": (2304, 2048),
  "gemma2-9b": (3584, 4096),
  "gemma2-27b": (4608, 4096),
}

# Number of autoencoders in each published repository, without those of the
# embedding. Some cells were released at more sparsities than others.
RELEASED = {
  ("gemma2-2b-pt", "attn"): 260,
  ("gemma2-2b-pt", "mlp"): 260,
  ("gemma2-2b-pt", "transcoder"): 26,
  ("gemma2-2b-pt", "resid"): 312,
  ("gemma2-9b-pt", "attn"): 492,
  ("gemma2-9b-pt", "mlp"): 492,
  ("gemma2-9b-pt", "resid"): 532,
  ("gemma2-27b-pt", "resid"): 18,
  ("gemma2-9b-it", "resid"): 30,
}


@pytest.fixture(scope="module")
def grids(load):
  """Returns all runs: {"gemma_scope_2b": {"16k": config, …}, …}."""
  return {name: load(name)["configs"]() for name in NAMES}


@pytest.fixture(scope="module")
def configs(grids):
  return [config for grid in grids.values() for config in grid.values()]


@pytest.fixture(scope="module")
def cells(configs):
  """Counts autoencoders by (model, site, layer, width, tokens)."""
  counts = collections.Counter()
  for config in configs:
    for stack in config.stacks:
      site = (stack.taps.kind, stack.taps.reads[0].layer)
      key = (config.lm, *site, stack.width, config.tokens)
      counts[key] += len(config.sae.members)
  return counts


@pytest.fixture(scope="module")
def total(configs):
  return sum((run_flops(c, read_sizes(c.lm)) for c in configs), RunFlops())


def test_every_published_cell_is_there_and_no_other(cells):
  assert set(cells) == {
    (*repository, layer, width, tokens)
    for repository, widths in PUBLISHED.items()
    for width, (layers, tokens) in widths.items()
    for layer in layers
  }


def test_each_cell_has_five_or_six_sparsities_and_transcoders_one(cells):
  counts = {site == "transcoder": set() for _, site, *_ in cells}
  for (_, site, *_), count in cells.items():
    counts[site == "transcoder"].add(count)
  assert counts == {False: {5, 6}, True: {1}}


def test_each_repository_has_about_as_many_as_was_released(cells):
  counts = collections.Counter()
  for (lm, where, *_), count in cells.items():
    counts[lm, where] += count
  assert counts.keys() == RELEASED.keys()
  for repository, released in RELEASED.items():
    assert counts[repository] == pytest.approx(released, rel=0.04)


def test_the_totals_are_those_of_the_paper(cells, total):
  # With one autoencoder per cell, and two of 4k on the embedding, this is what
  # was published: 459 cells and 34,365,440 latents.
  assert len(cells) + 2 == 459
  latents = sum(width for _, _, _, width, _ in cells)
  assert latents + 2 * 4096 == 34_365_440
  # Σ 6·2·D·F·tokens over the 2,430 released autoencoders is 6.95e22; ten
  # twelfths of these FLOPs are computed.
  assert total.saes == 848 + 1584 + 18
  assert total.sae_flops == pytest.approx(6.95e22 * 10 / 12, rel=0.02)


def test_shared_forward_passes_add_few_flops(configs, total):
  alone = sum(forward_passes_of_each(config) for config in configs)
  assert total.lm_flops < 0.05 * total.sae_flops < alone


def forward_passes_of_each(config):
  """Returns FLOPs if each autoencoder had its own forward passes."""
  once = 0
  for site in config.sae.sites:
    sweep = dataclasses.replace(config.sae, sites=(site,))
    one = dataclasses.replace(config, sae=sweep)
    once += run_flops(one, read_sizes(config.lm)).lm_flops
  return once * len(config.sae.widths) * len(config.sae.members)


@pytest.mark.parametrize("name", NAMES)
def test_every_run_has_the_shapes_of_the_published_model(grids, name):
  for run, config in grids[name].items():
    gemma = read_sizes(config.lm)
    for site in config.sae.sites:
      site.check(gemma)
    state = abstract(config, gemma)
    for stack, made in zip(config.stacks, state.stacks, strict=True):
      d = SIZES[config.lm[:-3]][stack.taps.kind == "attn"]
      assert made.sae.w_dec.shape == (
        len(config.sae.members),
        stack.width,
        d,
      ), run
    arrays = jax.tree.leaves([stack.sae for stack in state.stacks])
    parameters = sum(x.size for x in arrays)
    assert parameters == run_flops(config, gemma).parameters <= 48 * B


def abstract(config, gemma):
  return jax.eval_shape(lambda: init_state(config, gemma))


@pytest.mark.parametrize("name", NAMES)
def test_the_bucket_of_a_run_fits_beside_its_autoencoders(grids, name):
  # The memory that jaxsae/runs/grid.py states: float32, in a slice of 1.5 TB.
  for config in grids[name].values():
    gemma = read_sizes(config.lm)
    values = sum(site.width(gemma) for site in config.sites)
    assert 4 * values * config.fitted(16).bucket_tokens <= 250 * B


@pytest.mark.parametrize("name", NAMES)
def test_every_run_has_its_own_folder(grids, name):
  for run, config in grids[name].items():
    assert config.workdir == f"runs/{name}/{run}"


@pytest.mark.parametrize("name", NAMES)
def test_the_file_opens_with_its_command_and_claims_no_result(load, name):
  doc = load(name)["__doc__"]
  assert f"python experiments/{name}.py --list" in doc
  assert "Not yet run at full size." in doc


@pytest.mark.parametrize("name", NAMES)
def test_a_list_has_a_line_for_each_run(command, grids, name):
  status, out, _ = command(name, "--list")
  assert status == 0
  lines = out.splitlines()
  assert max(map(len, lines)) <= 80
  starts = [line.split(" ")[0] for line in lines]
  assert [start for start in starts if start in grids[name]] == [*grids[name]]
  assert len(grids[name]) == RUNS[name]


def test_a_list_shows_runs_with_sizes_and_flops(command):
  _, out, _ = command("gemma_scope_2b", "--list")
  rows = [" ".join(line.split()) for line in out.splitlines()]
  for row in (
    "run sites widths SAEs tokens params SAEs LM",
    "16k resid mlp attn 0-25 16k 390 4.0B 28.4B 5.67e20 1.66e19",
    "65k_8-16 resid mlp attn 8-16 65k 135 8.0B 39.3B 1.57e21 2.17e19",
    "1m_19 resid 19 1m 6 16.0B 29.0B 2.32e21 5.12e19",
    "9 in all 848 257.1B 1.32e22 2.15e20",
  ):
    assert row in rows


@pytest.mark.parametrize("name", NAMES)
def test_shares_of_the_grid_take_about_as_long(command, grids, name):
  listed, loads = [], []
  for i in range(1, 5):
    _, out, _ = command(name, "--list", f"--shard={i}/4")
    chosen = [x for x in (y.split(" ")[0] for y in out.splitlines())]
    chosen = [run for run in chosen if run in grids[name]]
    flops = [flops_of(grids[name][run]) for run in chosen]
    listed, loads = listed + chosen, [*loads, sum(flops)]
  assert sorted(listed) == sorted(grids[name])
  longest = max(map(flops_of, grids[name].values()))
  assert max(loads) <= max(1.2 * sum(loads) / 4, longest)


def flops_of(config):
  return run_flops(config, read_sizes(config.lm)).flops


def test_a_small_run_trains_once_and_is_then_complete(small, tmp_path):
  file = str(ROOT / "experiments" / "gemma_scope_2b.py")
  sites = "--sae.sites=resid.0,mlp.1,attn.1"
  call = [sys.executable, file, "--only=ladder", *small, sites]
  done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  folder = tmp_path / "runs" / "gemma_scope_2b" / "ladder"
  assert len(results_in(folder)) == 3 * 2
  again = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
  assert again.stdout == (
    "run 1 of 1, ladder is complete: runs/gemma_scope_2b/ladder\n"
  )


@pytest.mark.parametrize(
  ("name", "runs"),
  [("gemma_scope_9b", ["--only=it_16k"]), ("gemma_scope_27b", [])],
)
def test_small_runs_of_the_other_grids_train(
  command, small, tmp_path, name, runs
):
  status, _, err = command(name, *runs, *small, "--sae.sites=resid.0")
  assert status == 0, err
  (folder,) = (tmp_path / "runs" / name).glob("[!.]*")
  assert len(results_in(folder)) == 2


def results_in(folder):
  return json.loads((folder / "eval" / "2.json").read_text())["results"]
