"""Checkpoints are restored as saved, and the right ones are kept."""

import importlib.metadata
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.lm.weights import read_sizes
from jaxsae.train.checkpoint.checkpoints import Checkpoints
from tests import pods
from tests.train.toys import init_state, small


@pytest.fixture
def state(tmp_path, texts, lm_path):
  config = small(tmp_path, texts, lm_path)
  return init_state(config, read_sizes(config.lm), 2.0)


def at(state, step):
  return state.replace(step=jnp.int32(step))


def fill(checkpoints, state, steps):
  for step in steps:
    checkpoints.save(at(state, step), {"next_batch": step})
  checkpoints.wait()


def left(folder):
  return sorted(int(path.name) for path in folder.iterdir())


@pytest.mark.parametrize(
  ("keep", "every", "stay"),
  [
    (1, None, [7]),
    (2, None, [6, 7]),
    (1, 3, [3, 6, 7]),
    (2, 2, [2, 4, 6, 7]),
    (9, 5, [1, 2, 3, 4, 5, 6, 7]),
  ],
)
def test_the_newest_and_every_nth_checkpoint_are_kept(
  tmp_path, state, keep, every, stay
):
  checkpoints = Checkpoints(tmp_path / "c", keep, every)
  fill(checkpoints, state, range(1, 8))
  checkpoints.close()
  assert left(tmp_path / "c") == stay


def test_checkpoints_are_kept_when_the_run_continues(tmp_path, state):
  for steps in ([1, 2, 3], [4, 5]):
    checkpoints = Checkpoints(tmp_path / "c", 1, 2)
    if checkpoints.latest is not None:
      checkpoints.restore(state)
    fill(checkpoints, state, steps)
    checkpoints.close()
  assert left(tmp_path / "c") == [2, 4, 5]


def test_state_and_position_are_restored(tmp_path, state):
  checkpoints = Checkpoints(tmp_path / "c", 2)
  assert checkpoints.latest is None
  fill(checkpoints, state, [3, 3, 5])
  checkpoints.close()
  found, position = Checkpoints(tmp_path / "c", None).restore(state)
  pods.assert_same(found, at(state, 5))
  assert position == {"next_batch": 5}


def test_a_checkpoint_records_its_contents(tmp_path, state):
  checkpoints = Checkpoints(tmp_path / "c", 2)
  fill(checkpoints, state, [3])
  checkpoints.close()
  kept = json.loads((tmp_path / "c" / "3" / "_CHECKPOINT_METADATA").read_text())
  content = kept["custom_metadata"]["content"]
  assert content["step"] == 3 and content["data"] == {"next_batch": 3}
  kind, fingerprint = content["arrays"][".stacks[0].sae.w_enc"]
  assert kind == "float32[2,32,64]" and len(fingerprint) == 16
  assert len(content["arrays"]) == len(jax.tree.leaves(state))
  assert content["versions"]["jax"] == importlib.metadata.version("jax")
  assert set(content["versions"]) >= {"jaxsae", "orbax-checkpoint", "grain"}


def test_looking_for_checkpoints_creates_no_folder(tmp_path, state):
  checkpoints = Checkpoints(tmp_path / "c", None)
  assert checkpoints.latest is None
  with pytest.raises(UserError, match="no checkpoint yet"):
    checkpoints.restore(state)
  checkpoints.close()
  assert not (tmp_path / "c").exists()


def test_a_run_that_continues_removes_unfinished_saves(tmp_path, state):
  checkpoints = Checkpoints(tmp_path / "c", 2)
  fill(checkpoints, state, [1, 2])
  checkpoints.close()
  rest = tmp_path / "c" / "3.orbax-checkpoint-tmp"
  rest.mkdir()
  (rest / "state").write_text("half")
  again = Checkpoints(tmp_path / "c", 2)
  found, _ = again.restore(state)
  assert int(found.step) == 2
  fill(again, state, [3])
  again.close()
  assert left(tmp_path / "c") == [2, 3]


def test_a_changed_value_changes_the_fingerprints(tmp_path, state):
  """Fingerprints depend on what is saved, not on when."""

  def kept(name, state):
    checkpoints = Checkpoints(tmp_path / name, 1)
    fill(checkpoints, state, [1])
    checkpoints.close()
    path = tmp_path / name / "1" / "_CHECKPOINT_METADATA"
    return json.loads(path.read_text())["custom_metadata"]

  one = kept("a", state)
  assert kept("b", state) == one
  nudge = lambda x: x.at[0, 0, 0].set(np.nextafter(x[0, 0, 0], np.inf))
  stack = state.stacks[0]
  sae = stack.sae.replace(w_enc=nudge(stack.sae.w_enc))
  nudged = state.replace(stacks=(stack.replace(sae=sae),))
  assert kept("c", nudged) != one
