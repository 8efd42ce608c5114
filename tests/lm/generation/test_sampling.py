"""Tokens are drawn with their probability among those that are allowed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.lm.generation import sampling
from jaxsae.lm.generation.sampling import make_sampling

pytestmark = pytest.mark.slow

DRAWS = 20_000
LOGITS = np.array([0.5, -1.0, 2.0, 0.5, 1.0, -3.0], np.float32)
choose = jax.jit(sampling.choose)


def settings(temperature=1.0, top_k=None, top_p=None, seed=0):
  return make_sampling(temperature, top_k, top_p, seed)


def shares(**setting):
  """Returns the share of draws of each token."""
  rows = jnp.tile(LOGITS, (DRAWS, 1))
  drawn = choose(rows, settings(**setting), np.int32(3))
  return np.bincount(drawn, minlength=len(LOGITS)) / DRAWS


def softmax(logits):
  weights = np.exp(logits - logits.max())
  return weights / weights.sum()


def only(tokens, temperature=1.0):
  """Returns the probabilities if only these tokens are allowed."""
  allowed = np.isin(np.arange(len(LOGITS)), tokens)
  return softmax(np.where(allowed, LOGITS / temperature, -np.inf))


@pytest.mark.parametrize(
  "setting, expected",
  [
    ({}, softmax(LOGITS)),
    ({"temperature": 2.0}, softmax(LOGITS / 2)),
    ({"temperature": 0.5}, softmax(LOGITS / 0.5)),
    ({"top_k": 6}, softmax(LOGITS)),
    ({"top_k": 100}, softmax(LOGITS)),
    ({"top_k": 2}, only([2, 4])),
    ({"top_k": 3}, only([2, 4, 0])),  # of two equals, the first
    ({"top_k": 4, "temperature": 3.0}, only([2, 4, 0, 3], 3.0)),
    ({"top_p": 1.0}, softmax(LOGITS)),
    # The probabilities fall like 0.53, 0.20, 0.12, 0.12, 0.03, 0.004.
    ({"top_p": 0.5}, only([2])),
    ({"top_p": 0.6}, only([2, 4])),
    ({"top_p": 0.9}, only([2, 4, 0, 3])),
    # Of the two most likely alone, the first has 0.73.
    ({"top_p": 0.72, "top_k": 2}, only([2])),
    ({"top_p": 0.74, "top_k": 2}, only([2, 4])),
  ],
  ids=lambda x: str(x) if isinstance(x, dict) else "",
)
def test_tokens_are_drawn_by_their_probability(setting, expected):
  found = shares(**setting)
  assert (found[expected == 0] == 0).all()
  spread = np.sqrt(expected * (1 - expected) / DRAWS)
  np.testing.assert_array_less(np.abs(found - expected), 4.5 * spread + 1e-9)


@pytest.mark.parametrize(
  "setting",
  [{"temperature": 0}, {"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-6}],
  ids=str,
)
def test_settings_that_leave_one_token_are_greedy(setting):
  logits = jax.random.normal(jax.random.key(0), (50, 300)).at[:, 7:9].set(9.0)
  logits = logits.at[:25, 8].add(-1).at[40:, 200].set(1e6)
  found = choose(logits, settings(**setting), np.int32(0))
  if setting == {"temperature": 1e-6}:  # cannot tell equals apart
    assert set(np.asarray(found[25:40])) == {7, 8}
    found = found.at[25:40].set(7)
  np.testing.assert_array_equal(found, logits.argmax(-1))


def test_draws_depend_on_seed_and_step_but_not_on_other_rows():
  logits = jax.random.normal(jax.random.key(1), (40, 100))
  draw = lambda rows, seed, step: np.asarray(
    choose(logits[:rows], settings(seed=seed), np.int32(step))
  )
  one = draw(40, 5, 2)
  np.testing.assert_array_equal(one, draw(40, 5, 2))
  np.testing.assert_array_equal(one[:3], draw(3, 5, 2))
  assert (one != draw(40, 6, 2)).mean() > 0.5
  assert (one != draw(40, 5, 3)).mean() > 0.5


def test_new_values_compile_nothing():
  traced = []

  @jax.jit
  def counted(*args):
    traced.append(args)
    return sampling.choose(*args)

  for i in range(3):
    counted(jnp.zeros((2, 9)), settings(i + 0.5, i + 2, 0.5, i), np.int32(i))
  assert len(traced) == 1


@pytest.mark.parametrize(
  "setting, said",
  [
    ({"temperature": -1}, r"temperature=-1 .* 0 for"),
    ({"temperature": float("nan")}, "temperature=nan"),
    ({"temperature": float("inf")}, "temperature=inf"),
    ({"temperature": 1e-9}, "temperature=1e-09 .* from 1e-06 up"),
    ({"top_k": 0}, "top_k=0 .* 1 or more"),
    ({"top_k": 2.5}, r"top_k=2\.5"),
    ({"top_p": 0.0}, r"top_p=0\.0 .* above 0"),
    ({"top_p": 1.1}, r"top_p=1\.1"),
    ({"top_p": float("nan")}, "top_p=nan"),
    ({"seed": -1}, "seed=-1 is not a whole number"),
    ({"seed": 2**32}, "seed=4294967296"),
    ({"temperature": 0, "top_k": -1}, "top_k=-1"),  # even where unused
  ],
  ids=str,
)
def test_impossible_settings_are_named(setting, said):
  with pytest.raises(UserError, match=said):
    settings(**setting)
