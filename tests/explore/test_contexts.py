"""Top contexts against a search in plain Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.explore.contexts import add_contexts, no_contexts, to_report
from jaxsae.token_batch import TokenBatch

ROWS, TIME, LATENTS = 12, 20, 6
CONTEXTS, WINDOW = 4, 9
DEAD = 2


def make_text(seed=0):
  """Latents of few values, so that many tie, and packed rows."""
  rng = np.random.default_rng(seed)
  shape = (ROWS, TIME)
  latents = rng.integers(1, 5, (*shape, LATENTS)).astype("f4")
  latents *= rng.random(latents.shape) < 0.1
  latents[..., DEAD] = 0
  latents[:, 1:, 4] = 0  # its peaks are at the left edge
  latents[:, :-1, 5] = 0  # and at the right
  breaks = rng.random(shape) < 0.15
  segments = np.cumsum(breaks, axis=1, dtype="i4") + 1
  starts = np.maximum.accumulate(
    np.where(breaks, np.arange(TIME), 0), axis=1, dtype="i4"
  )
  return latents, TokenBatch(
    tokens=rng.integers(100, size=shape, dtype="i4"),
    segments=segments,
    positions=np.arange(TIME, dtype="i4") - starts,
    documents=segments * 100 + np.arange(ROWS, dtype="i4")[:, None],
  )


def found(latents, batch, sizes):
  """The top contexts, with the rows in batches of these sizes."""
  top = no_contexts(LATENTS, CONTEXTS, WINDOW)
  add = jax.jit(add_contexts)
  at = 0
  for size in sizes:
    rows = slice(at, at + size)
    part = jax.tree.map(lambda x, rows=rows: jnp.asarray(x[rows]), batch)
    top = add(top, jnp.asarray(latents[rows]), part)
    at += size
  return to_report(top)


def expected(latents, batch, latent):
  """(row, time) of the strongest token of the best rows, earlier ones first."""
  best = [(row, int(np.argmax(latents[row, :, latent]))) for row in range(ROWS)]
  best = [(r, t) for r, t in best if latents[r, t, latent] > 0]
  return sorted(best, key=lambda at: -latents[*at, latent])[:CONTEXTS]


@pytest.mark.parametrize("sizes", [[12], [4, 4, 4], [8, 4]])
@pytest.mark.parametrize("seed", [0, 1])
def test_they_are_the_strongest_rows_however_batched(sizes, seed):
  latents, batch = make_text(seed)
  contexts = found(latents, batch, sizes)
  for latent in range(LATENTS):
    best = expected(latents, batch, latent)
    assert contexts.count[latent] == len(best)
    for k, (row, time) in enumerate(best):
      at = latent, k
      assert contexts.position[at] == batch.positions[row, time]
      assert contexts.document[at] == batch.documents[row, time]
      check_window(contexts, at, latents[..., latent], batch, row, time)


def check_window(contexts, at, activations, batch, row, time):
  peak = contexts.peak[at]
  assert contexts.activations[at][peak] == activations[row, time]
  for i in range(WINDOW):
    here = time + i - peak
    token, activation = -1, 0
    segments = batch.segments[row]
    if 0 <= here < TIME and segments[here] == segments[time]:
      token, activation = batch.tokens[row, here], activations[row, here]
    assert contexts.tokens[at][i] == token
    assert contexts.activations[at][i] == activation


def test_a_latent_that_never_fires_has_none():
  contexts = found(*make_text(), [4, 8])
  assert contexts.count[DEAD] == 0
  assert (contexts.tokens[DEAD] == -1).all()
  assert (contexts.activations[DEAD] == 0).all()
  assert (contexts.document[DEAD] == -1).all()


def test_contexts_that_are_not_there_are_empty():
  latents, batch = make_text()
  latents[3:] = 0
  contexts = found(latents, batch, [12])
  missing = np.arange(CONTEXTS)[None] >= contexts.count[:, None]
  assert missing.any(axis=0).tolist() == [True] * CONTEXTS
  assert (contexts.tokens[missing] == -1).all()
  assert (contexts.activations[missing] == 0).all()


@pytest.mark.parametrize("window", [1, 32])
def test_the_peak_is_inside_a_window_of_any_size(window):
  latents, batch = make_text()
  top = no_contexts(LATENTS, CONTEXTS, window)
  batch = jax.tree.map(jnp.asarray, batch)
  top = jax.jit(add_contexts)(top, jnp.asarray(latents), batch)
  contexts = to_report(top)
  real = contexts.activations[contexts.count > 0, 0]
  peak = contexts.peak[contexts.count > 0, 0]
  at_peak = np.take_along_axis(real, peak[:, None], axis=1)[:, 0]
  np.testing.assert_array_equal(at_peak, real.max(axis=1))
  assert (at_peak > 0).all()
