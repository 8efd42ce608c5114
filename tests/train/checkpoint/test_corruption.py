"""Corrupted checkpoints are named, kept, and never used."""

import collections
import errno
import json
import os
import pathlib
import random
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from etils import epath

from jaxsae.errors import RunError, StorageError, UserError
from jaxsae.runs import open_run
from jaxsae.train.checkpoint.checkpoints import Checkpoints
from jaxsae.train.loop import train

pytestmark = pytest.mark.slow

MANIFEST = "_CHECKPOINT_METADATA"


@pytest.fixture
def run(made, tmp_path):
  """Copies the run, for tests that corrupt it."""
  shutil.copytree(made.path, tmp_path / "run")
  return tmp_path / "run"


def bits(state) -> list[bytes]:
  plain = lambda x: (
    jax.random.key_data(x)
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    else x
  )
  return [np.asarray(plain(x)).tobytes() for x in jax.tree.leaves(state)]


def used(made, found) -> int:
  """Returns the step that was restored, after comparing state and position."""
  state, position = found
  (step,) = (
    step
    for step, (saved, data) in made.states.items()
    if bits(saved) == bits(state) and data == position
  )
  return step


def snapshot(folder: pathlib.Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def flip(file: pathlib.Path, place: int, bit: int = 0) -> None:
  data = bytearray(file.read_bytes())
  data[place] ^= 1 << bit
  file.write_bytes(bytes(data))


def data_file(step: pathlib.Path) -> pathlib.Path:
  (file,) = (step / "state" / "ocdbt.process_0" / "d").iterdir()
  return file


def weights_place(step) -> range:
  """Returns the bytes of the data file that hold an encoder's weights."""
  state = {"driver": "ocdbt", "base": f"file://{step}/state/"}
  store = tensorstore.KvStore.open(state).result()
  saved = store.read("stacks.0.sae.w_enc/c/1/0/0").result().value
  at = data_file(step).read_bytes().index(saved)
  return range(at, at + len(saved))


def flip_weights(step):
  place = weights_place(step)
  flip(data_file(step), place[len(place) // 2], bit=3)


def truncate(step):
  data_file(step).write_bytes(data_file(step).read_bytes()[:5000])


def empty(step):
  shutil.rmtree(step)
  step.mkdir()


def half(step):
  """Deletes half of a checkpoint, like an interrupted copy."""
  shutil.rmtree(step / "state")


def flip_position(step):
  text = (step / MANIFEST).read_text()
  flip(step / MANIFEST, text.index('"next_batch"') + len('"next_batch": '))


def cast(step, made):
  """Saves the same weights in another type."""
  state, position = made.states[6]
  less = lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x
  shutil.rmtree(step)
  writer = Checkpoints(step.parent, keep=9)
  writer.save(jax.tree.map(less, state), position)
  writer.close()


def put_foreign(step, made):
  """Saves a state of another width."""
  twice = lambda x: jnp.repeat(x, 2, axis=-1) if x.ndim > 1 else x
  shutil.rmtree(step)
  writer = Checkpoints(step.parent, keep=9)
  writer.save(jax.tree.map(twice, made.states[6][0]), made.states[6][1])
  writer.close()


def put_incomplete(step, made):
  """Saves a state with fewer arrays, as another version would."""
  state, position = made.states[6]
  less = state.replace(
    stacks=tuple(stack.replace(moments=()) for stack in state.stacks)
  )
  shutil.rmtree(step)
  writer = Checkpoints(step.parent, keep=9)
  writer.save(less, position)
  writer.close()


def put_older(step):
  """Puts the checkpoint before it under its name."""
  shutil.rmtree(step)
  shutil.copytree(step.parent / "4", step)


CORRUPTIONS = {
  "a bit in the weights": (flip_weights, "is not what was saved"),
  "truncated data": (truncate, "cannot be read .*OUT_OF_RANGE"),
  "data gone": (lambda s: data_file(s).unlink(), "cannot be read"),
  "no OCDBT manifest": (
    lambda s: (s / "state" / "manifest.ocdbt").unlink(),
    "cannot be read .*NOT_FOUND",
  ),
  "no tree": (
    lambda s: (s / "state" / "_METADATA").unlink(),
    "cannot be read",
  ),
  "an empty folder": (empty, "no manifest"),
  "half a copy": (half, "cannot be read"),
  "no manifest": (lambda s: (s / MANIFEST).unlink(), "no manifest"),
  "an empty manifest": (lambda s: (s / MANIFEST).write_text(""), "no manifest"),
  "no JSON object": (lambda s: (s / MANIFEST).write_text("[]"), "no manifest"),
  "a bit in the position": (flip_position, "manifest is not what was written"),
  "another type": (cast, r"bfloat16\[2,32,128\], and this run's float32"),
  "another width": (put_foreign, r"float32\[2,32,256\], and this run's"),
  "fewer arrays": (put_incomplete, "it has no .*moments.*, and this run does"),
  "another step's": (put_older, "it is of step 4"),
}


def corrupt(step: pathlib.Path, made, name: str) -> None:
  do, _ = CORRUPTIONS[name]
  do(step, made) if do in (cast, put_foreign, put_incomplete) else do(step)


def test_an_intact_checkpoint_is_used_without_a_message(made, run, capsys):
  before = snapshot(run)
  found = Checkpoints(run / "checkpoints", keep=3).restore(made.like)
  assert used(made, found) == 6
  assert capsys.readouterr().err == ""
  assert snapshot(run) == before


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_checkpoint_before_a_corrupted_one_is_used(made, run, capfd, name):
  corrupt(run / "checkpoints" / "6", made, name)
  before = snapshot(run)
  found = Checkpoints(run / "checkpoints", keep=3).restore(made.like)
  assert used(made, found) == 4
  err = capfd.readouterr().err
  assert f"checkpoint 6 in {run}/checkpoints cannot be used: it" in err
  assert len(err.splitlines()) == 3  # and nothing of Orbax's
  assert re.search(CORRUPTIONS[name][1], err)
  moved = {
    path.replace("damaged/6", "checkpoints/6"): data
    for path, data in snapshot(run).items()
  }
  assert moved == before


def test_a_reader_moves_no_corrupted_checkpoint(made, run, capsys):
  flip_weights(run / "checkpoints" / "6")
  before = snapshot(run)
  found = Checkpoints(run / "checkpoints", keep=None).restore(made.like)
  assert used(made, found) == 4
  assert "checkpoint 6" in capsys.readouterr().err
  assert snapshot(run) == before


def test_figures_are_never_those_of_an_older_checkpoint_unasked(made, run):
  flip_weights(run / "checkpoints" / "6")
  opened = open_run(run)
  corrupted = opened.names[1]  # the second of the stack
  opened.read_on_host(opened.names[0])
  with pytest.raises(RunError) as refused:
    opened.read_on_host(corrupted)
  for part in ("checkpoint 6", "w_enc", f"Move {run}/checkpoints/6 away"):
    assert part in str(refused.value)
  shutil.move(run / "checkpoints" / "6", run / "away")
  assert open_run(run).step == 4
  open_run(run).read_on_host(corrupted)


def test_several_corrupted_checkpoints_are_skipped(made, run, capsys):
  flip_weights(run / "checkpoints" / "6")
  (run / "checkpoints" / "4" / MANIFEST).unlink()
  found = Checkpoints(run / "checkpoints", keep=3).restore(made.like)
  assert used(made, found) == 2
  assert sorted(p.name for p in (run / "damaged").iterdir()) == ["4", "6"]


def test_older_corrupted_checkpoints_are_named_too(made, run, capsys):
  (run / "checkpoints" / "2" / MANIFEST).write_text("[]")
  found = Checkpoints(run / "checkpoints", keep=3).restore(made.like)
  assert used(made, found) == 6
  assert "checkpoint 2" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("number", "kind", "advice"),
  [
    (errno.EACCES, UserError, "make it readable"),
    (errno.EIO, StorageError, "run the same command again"),
    (errno.EMFILE, StorageError, "run the same command again"),
  ],
)
def test_what_cannot_be_read_now_is_not_taken_for_corrupted(
  made, run, monkeypatch, number, kind, advice
):
  newest = run / "checkpoints" / "6" / MANIFEST
  local = type(epath.Path(newest))
  read_text = local.read_text

  def fail(path, *args, **options):
    if str(path) == str(newest):
      raise OSError(number, os.strerror(number), str(path))
    return read_text(path, *args, **options)

  monkeypatch.setattr(local, "read_text", fail)
  with pytest.raises(kind) as refused:
    Checkpoints(run / "checkpoints", keep=3).restore(made.like)
  assert str(newest) in str(refused.value) and advice in str(refused.value)
  assert not (run / "damaged").exists()


def test_no_run_starts_anew_if_all_checkpoints_are_corrupted(
  made, run, replace, capsys
):
  flip_weights(run / "checkpoints" / "6")
  truncate(run / "checkpoints" / "4")
  empty(run / "checkpoints" / "2")
  before = snapshot(run)
  with pytest.raises(UserError) as refused:
    train(replace(made.config, workdir=str(run)))
  for part in ("6: its", "4: it cannot", "2: it has no", "--workdir=DIR"):
    assert part in str(refused.value)
  assert "\n" not in str(refused.value)
  assert snapshot(run) == before


def test_a_run_continues_past_a_corrupted_checkpoint(
  made, run, replace, capsys
):
  """The second time, its name in `damaged/` is taken."""
  for name in ("6", "6.2"):
    flip_weights(run / "checkpoints" / "6")
    bad = snapshot(run / "checkpoints" / "6")
    state = train(replace(made.config, workdir=str(run)))
    assert bits(state) == bits(made.states[6][0])
    assert snapshot(run / "damaged" / name) == bad
    steps = sorted(p.name for p in (run / "checkpoints").iterdir())
    assert steps == ["2", "4", "6"]
  assert (
    used(made, Checkpoints(run / "checkpoints", None).restore(made.like)) == 6
  )
  lines = (run / "metrics.jsonl").read_text().splitlines()
  assert [json.loads(x)["step"] for x in lines] == [1, 2, 3, 4, 5, 6]


def test_no_flipped_bit_is_ever_used(made, run, tmp_path, capsys):
  """Flips two bits in each file and forty in weights, one at a time."""
  chosen = random.Random(0)
  step = run / "checkpoints" / "6"
  files = [p for p in sorted(step.rglob("*")) if p.is_file()]
  seen = collections.Counter()
  for file in files:
    is_data = file == data_file(step)
    places = weights_place(step) if is_data else range(file.stat().st_size)
    for _ in range(40 if is_data else 2):
      place, bit = chosen.choice(places), chosen.randrange(8)
      flip(file, place, bit)
      found = Checkpoints(run / "checkpoints", None).restore(made.like)
      seen[used(made, found)] += 1
      flip(file, place, bit)
  # What is left are bits that say nothing, as of the time of saving.
  assert seen[4] >= 40 and seen[2] == 0
