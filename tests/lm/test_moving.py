"""Edits at sites that are data do what edits at fixed sites do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.lm import (
  GemmaConfig,
  Lm,
  Patch,
  Site,
  Splice,
  Taps,
  init_params,
  run,
  splice,
)
from jaxsae.lm.moving import (
  NOWHERE,
  MovingPatch,
  MovingSplice,
  Shape,
  stream_patched,
  stream_spliced,
)
from jaxsae.sae import Sae
from jaxsae.token_batch import TokenBatch

pytestmark = pytest.mark.slow

D, F, LAYERS = 16, 24, 3


@pytest.fixture(scope="module")
def lm():
  config = GemmaConfig(
    vocab_size=40,
    num_layers=LAYERS,
    embed_dim=D,
    hidden_dim=16,
    num_heads=2,
    num_kv_heads=2,
    head_dim=12,
    query_pre_attn_scalar=12,
  )
  shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
  rng = np.random.default_rng(0)
  draw = lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), x.dtype)
  return Lm(jax.tree.map(draw, shapes), config)


@pytest.fixture(scope="module")
def batch():
  tokens = np.random.default_rng(1).integers(0, 40, (2, 6)).astype(np.int32)
  positions = np.broadcast_to(np.arange(6, dtype=np.int32), tokens.shape)
  return TokenBatch(
    positions=positions, segments=np.ones_like(tokens), tokens=tokens
  )


MASK = np.arange(12).reshape(2, 6) % 3 > 0


def sae(taps, lm):
  rng = np.random.default_rng(2)
  d_in, d = taps.d_in(lm.config), taps.d(lm.config)
  draw = lambda *shape: jnp.asarray(rng.normal(0, 0.2, shape), jnp.float32)
  return Sae(draw(d_in, F), draw(F), draw(F, d), draw(d), 0.1 * jnp.ones(F))


@pytest.fixture(scope="module")
def compiled():
  """Counts how often it is traced."""
  traced = []

  @jax.jit
  def stream(lm, batch, edit):
    traced.append(edit)
    return stream_spliced(lm, batch, edit)

  stream.traced = traced
  return stream


@functools.partial(jax.jit, static_argnames="taps")
def fixed(lm, batch, taps, edit):
  """The residual stream with an edit at sites that are structure."""
  return run(
    lm,
    batch.tokens,
    splice(taps, edit),
    num_blocks=LAYERS,
    **batch.packing,
  )


PLACES = [
  ["resid.0", "mlp.2", "mlp_in.1"],
  ["attn.0", "attn.2"],
  ["transcoder.0", "transcoder.2"],
  ["mlp_in.0:mlp.0+mlp.1", "mlp_in.1:mlp.1+mlp.2"],  # causal
  ["resid.0+resid.2", "resid.1+resid.2"],  # reads after it writes
  ["attn.1:resid.1", "attn.0:mlp.2"],  # of two widths
]


@pytest.mark.parametrize("places", PLACES, ids=lambda some: some[0])
def test_a_splice_moves_without_compiling_anew(lm, batch, compiled, places):
  every = [Taps.parse(place) for place in places]
  shape = functools.reduce(lambda a, b: a | b, map(Shape.of, every))
  before = len(compiled.traced)
  for taps in every:
    edit = Splice(sae(taps, lm), mask=MASK)
    found = compiled(lm, batch, MovingSplice.at(taps, edit, shape))
    expected = fixed(lm, batch, taps, edit)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    clean = run(lm, batch.tokens, {}, num_blocks=LAYERS, **batch.packing)
    assert np.abs(found - clean).max() > 1e-2
  assert len(compiled.traced) == before + 1


def test_patches_move_and_several_may_be_in_place(lm, batch):
  rng = np.random.default_rng(3)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  values = {"resid": draw(2, D), "attn": draw(1, 24)}
  patched = jax.jit(stream_patched)
  for resid, attn in [((0, 1), 2), ((1, None), 0), ((None, None), None)]:
    number = lambda where, at: NOWHERE if at is None else Site(where, at).number
    at = {
      "resid": np.array([number("resid", layer) for layer in resid], np.int32),
      "attn": np.array([number("attn", attn)], np.int32),
    }
    found = patched(lm, batch, MovingPatch(at, values, MASK))
    edits = {
      Site("resid", layer): Patch(value, MASK)
      for layer, value in zip(resid, values["resid"], strict=True)
      if layer is not None
    }
    if attn is not None:
      edits[Site("attn", attn)] = Patch(values["attn"][0], MASK)
    expected = run(lm, batch.tokens, edits, num_blocks=LAYERS, **batch.packing)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  assert patched._cache_size() == 1
