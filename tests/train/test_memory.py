"""What cannot fit is refused before anything is made, with both sizes."""

import dataclasses
import time

import jax.numpy as jnp
import pytest

from jaxsae import mesh as meshes
from jaxsae import process, train
from jaxsae.errors import UserError
from jaxsae.mesh import MeshConfig
from jaxsae.train import BucketConfig, SweepConfig, memory


@pytest.mark.parametrize(
  ("sizes", "named"),
  [
    ({"sae__widths": (10**9,)}, "--sae.widths"),
    ({"sae__widths": (64, 3 * 10**7), "sae__seeds": (0, 1, 2)}, "--sae.widths"),
    ({"bucket__microbatches": 10**8}, "--bucket.microbatches"),
    (
      {"bucket": BucketConfig(rows=2**30, update_tokens=2**30)},
      "--bucket.rows",
    ),
  ],
)
def test_a_run_that_cannot_fit_is_refused_at_once(
  config, replace, tmp_path, sizes, named
):
  large = replace(config, workdir=str(tmp_path / "run"), **sizes)
  began = time.monotonic()
  with pytest.raises(UserError) as refused:
    train.train(large)
  said = str(refused.value)
  for part in ("needs", "GB", "are there", "autoencoders", named):
    assert part in said
  assert time.monotonic() - began < 60
  assert not (tmp_path / "run").exists()


def test_arrays_are_sized_before_the_autoencoders_are_made():
  x = jnp.ones((4, 8))
  with pytest.raises(UserError, match=r"needs .* GB .* are there"):
    train.train_on(SweepConfig(widths=(10**9,)), [x], x, updates=1)


def test_what_fits_exactly_fits():
  mesh = meshes.make(MeshConfig(1, 1))
  there = memory.device_memory(mesh)
  memory.check_room({"a": there / 2, "b": there / 2}, mesh, "use less")
  with pytest.raises(UserError, match=r"for a, .* for b; use less"):
    memory.check_room({"a": there / 2, "b": there / 2 + 1e9}, mesh, "use less")


def test_devices_of_a_cpu_share_its_memory():
  one, eight = (meshes.make(MeshConfig(n, 1)) for n in (1, 8))
  assert memory.device_memory(one) == process.memory_limit()
  assert memory.device_memory(eight) == process.memory_limit() / 8


def test_a_container_that_is_smaller_than_its_machine_counts(
  tmp_path, monkeypatch
):
  limit = tmp_path / "memory.max"
  monkeypatch.setattr(process, "_LIMITS", (str(limit),))
  machine = process.memory_limit()
  for text in ("max\n", "9223372036854771712\n", ""):
    limit.write_text(text)
    assert process.memory_limit() == machine
  limit.write_text("1000000\n")
  assert process.memory_limit() == 1e6


def test_a_breakdown_names_all_that_is_known():
  made = memory.MemoryBreakdown(lm=1, saes=2, moments=4, bucket=8)
  assert made.known == 15 and made.total is None
  assert dataclasses.replace(made, temporaries=16).total == 31
