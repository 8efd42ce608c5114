"""A store that does not answer never makes a checkpoint count as corrupted."""

import jax
import numpy as np
import pytest
import tensorstore
from etils import epath
from orbax.checkpoint import v1 as ocp

from jaxsae.errors import RunError, StorageError
from jaxsae.lm.formats.orbax_tree import limit_retries
from jaxsae.train.checkpoint import checkpoints
from jaxsae.train.checkpoint.checkpoints import Checkpoints
from jaxsae.train.checkpoint.corruption import Corrupted
from jaxsae.train.checkpoint.members import Members

THERE = epath.Path("gs://bucket/run/checkpoints/4")
DOWN = "ABORTED: All 9 retry attempts failed: Service Unavailable"
DAMAGED = "DATA_LOSS: Error decoding B-tree node"


def failing(monkeypatch, owner, name, text):
  def fail(*_, **__):
    try:
      raise ValueError(text)
    except ValueError as error:
      raise RuntimeError("Orbax failed") from error

  def fail_itself(*_, **__):
    raise ValueError(text)

  monkeypatch.setattr(owner, name, fail if owner is ocp else fail_itself)


@pytest.mark.parametrize(
  ("folder", "text", "kind"),
  [
    (THERE, DOWN, StorageError),
    (THERE, DAMAGED, Corrupted),
    (epath.Path("/run/checkpoints/4"), DOWN, Corrupted),
  ],
)
def test_reading(monkeypatch, folder, text, kind):
  failing(monkeypatch, ocp, "load", text)
  with pytest.raises(kind):
    checkpoints._read(folder, None)
  failing(monkeypatch, tensorstore, "open", text)
  like = jax.ShapeDtypeStruct((4,), np.float32)
  with pytest.raises(kind):
    Members(4, folder, {}, {}, None)._row(".stacks[0].sae.b_enc", 0, like)


@pytest.mark.parametrize(
  ("folder", "text", "status"),
  [(THERE, DOWN, 42), (THERE, DAMAGED, 1), (epath.Path("/run"), DOWN, 1)],
)
def test_writing(folder, text, status):
  with pytest.raises(RunError) as stop, Checkpoints(folder, 3)._failure_named():
    raise ValueError(text)
  assert stop.value.status == status
  assert "\n" not in str(stop.value)


def test_orbax_still_takes_the_limit():
  """It is set where Orbax does not promise to look."""
  from orbax.checkpoint._src.serialization import tensorstore_utils

  limit_retries()
  made = tensorstore_utils.get_ts_context(use_ocdbt=True)
  kept = made["gcs_request_retries"].to_json()
  assert kept["max_retries"] < 32 and kept["max_delay"] == "30s"
