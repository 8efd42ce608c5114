"""Values are described in one short line, whatever they hold."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.brief import brief, fields
from jaxsae.lm import Site, gemma2_tiny
from jaxsae.sae import JumpRelu
from jaxsae.token_batch import TokenBatch
from jaxsae.train import SweepConfig, TrainConfig
from jaxsae.train import state as states


@pytest.mark.parametrize(
  "value, line",
  [
    (np.zeros((2, 3), np.float32), "float32[2, 3]"),
    (jnp.zeros((2, 3), jnp.int32), "int32[2, 3]"),
    (np.float32(8), "8.0"),
    (jnp.array([7]), "7"),
    (jax.ShapeDtypeStruct((2,), jnp.float32), "float32[2]"),
    ({"a": np.zeros(3), "b": [np.zeros(2)]}, "dict of 2 arrays"),
    ("text", "'text'"),
    (None, "None"),
    ("a\nb", "'a\\nb'"),
  ],
)
def test_arrays_are_types_and_shapes(value, line):
  assert brief(value) == line


@pytest.mark.parametrize(
  "value", ["x" * 10_000, list(range(10_000)), b"\0" * 999]
)
def test_long_values_are_cut(value):
  assert len(brief(value)) == 60


def test_a_random_key_has_a_shape():
  assert "key" in brief(jax.random.key(0))


def test_inside_jit_there_are_no_numbers():
  seen = []
  jax.jit(lambda x: seen.append(brief(x)) or x)(jnp.ones(1))
  assert seen == ["float32[1]"]


def test_fields_that_have_their_default_are_left_out():
  @dataclasses.dataclass
  class Pair:
    a: object
    b: object = None
    __repr__ = fields

  assert repr(Pair(1)) == "Pair(a=1)"
  assert repr(Pair(1, Pair(2, 3))) == "Pair(a=1, b=Pair(a=2, b=3))"


def test_batches_and_states_are_one_line():
  tokens = np.zeros((4, 256), np.int32)
  batch = TokenBatch(tokens=tokens, segments=tokens, positions=tokens)
  assert "tokens=int32[4, 256]" in repr(batch)
  sweep = SweepConfig(sites=(Site("resid", 3),), widths=(16,))
  stacks = TrainConfig(lm="gemma2-tiny", sae=sweep).stacks
  site = Site("resid", 3)
  widths = {site: site.width(gemma2_tiny())}
  state = states.init(stacks, 0, widths, {site: 1.0})
  for value in (state, state.stacks[0], jax.tree.map(lambda x: None, state)):
    line = repr(value)
    assert "\n" not in line
    assert len(line) < 500
  assert "step=0" in repr(state)
  assert JumpRelu.name
