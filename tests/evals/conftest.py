"""A random Gemma 2 of two layers, and packed rows of text."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.lm import GemmaConfig, Lm, Taps, init_params
from jaxsae.token_batch import TokenBatch
from tests.evals import reference
from tests.evals.samples import BOS, EOS, lookup_transcoder, split

CONTEXT = 12


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
  """The part of a tokenizer that evaluation uses."""

  bos: int = BOS
  eos: int = EOS


@pytest.fixture(scope="session")
def lm():
  config = GemmaConfig(
    vocab_size=40,
    num_layers=2,
    embed_dim=16,
    hidden_dim=32,
    num_heads=2,
    num_kv_heads=2,
    head_dim=12,
    query_pre_attn_scalar=12,
    window=4,
    context=CONTEXT,
  )
  # Drawn by NumPy, because compiling JAX's initialisers takes seven seconds.
  shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype), shapes
  )
  return Lm(params, config, SpecialTokens())


@pytest.fixture(scope="session")
def rows():
  """Twelve rows, each of two documents and padding; one document ends."""
  rng = np.random.default_rng(0)
  shape = (12, CONTEXT)
  tokens = rng.integers(3, 40, shape).astype(np.int32)
  segments, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
  for row in range(len(tokens)):
    cut, end = rng.integers(3, 6), rng.integers(8, CONTEXT + 1)
    segments[row, :cut], segments[row, cut:end] = 1, 2
    positions[row, :cut] = np.arange(cut)
    positions[row, cut:end] = np.arange(end - cut)
    tokens[row, [0, cut]] = BOS
    tokens[row, cut - 1] = EOS
  return TokenBatch(
    documents=np.where(segments > 0, segments + 2 * np.arange(12)[:, None], -1),
    positions=positions,
    segments=segments,
    tokens=tokens,
  )


@pytest.fixture(scope="session")
def batches(rows):
  """Three batches of four rows."""
  return split(rows, 4)


@pytest.fixture(scope="session")
def exact_transcoder(lm, batches):
  """Makes a transcoder of layer 1 that is exact on the text of the batches."""
  site = Taps.transcoder(1)
  x = reference.activations(lm, batches, site.reads[0])
  y = reference.activations(lm, batches, site.writes[0])
  gain = 1 + np.asarray(lm.params["layer_1"]["pre_ffw_norm"]["scale"])
  return lookup_transcoder(x, y, gain)
