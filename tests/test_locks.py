"""Locks hold released versions and nothing else, and agree with each other."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = ["requirements.txt", "requirements-core.txt"]
TPU = "requirements-tpu.txt"


def pins(name):
  """The lines of a lock without comments, as `name==version [; marker]`."""
  lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
  return {line.partition("#")[0].strip() for line in lines} - {""}


def names(name):
  return {pin.partition("==")[0] for pin in pins(name)}


@pytest.mark.parametrize("lock", [*LOCKS, TPU, "requirements.in"])
def test_each_line_is_a_released_version(lock):
  # No address, local path, option or local build such as 2.13.0+cpu.
  released = re.compile(r"[a-z0-9._-]+==[0-9][a-z0-9.]*( ; [^/]+)?")
  assert [pin for pin in pins(lock) if not released.fullmatch(pin)] == []


def test_the_core_is_part_of_the_full_lock():
  # So that `make quickstart` leaves the environment of `make test` as it is.
  assert names(LOCKS[1]) < names(LOCKS[0])
  versions = {pin.partition(" ;")[0] for pin in pins(LOCKS[0])}
  assert {pin.partition(" ;")[0] for pin in pins(LOCKS[1])} <= versions


def test_a_tpu_gets_the_tested_versions():
  assert names(LOCKS[1]) | {"libtpu", "gcsfs"} <= names(TPU)
  both = names(TPU) & names(LOCKS[0])
  versions = {pin.partition(" ;")[0] for pin in pins(LOCKS[0])}
  for pin in pins(TPU):
    assert pin.partition("==")[0] not in both or (
      pin.partition(" ;")[0] in versions
    )


def test_the_full_lock_has_the_chosen_versions():
  versions = lambda name: {pin.partition(" ;")[0] for pin in pins(name)}
  assert versions("requirements.in") <= versions(LOCKS[0])


def test_the_core_is_light_and_the_lock_free_of_cuda():
  assert not names(LOCKS[1]) & {"torch", "tensorflow", "gemma", "sae-lens"}
  cuda = re.compile(r"nvidia-.*|cuda-.*|triton")
  assert [name for name in names(LOCKS[0]) if cuda.fullmatch(name)] == []
