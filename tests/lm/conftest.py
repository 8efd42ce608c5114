"""Tiny Gemma 2s with every feature, and weights that none of it hides in."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import pytest

from jaxsae.lm import GemmaConfig, Lm, init_params, save_lm, train_tokenizer

# The caps are low enough to bend the logits, the windows shorter than a
# sequence, and heads · head_dim is not embed_dim.
CONFIGS = {
  "grouped": GemmaConfig(
    vocab_size=64,
    num_layers=4,
    embed_dim=32,
    hidden_dim=48,
    num_heads=8,
    num_kv_heads=4,
    head_dim=8,
    query_pre_attn_scalar=8,
    window=5,
    context=64,
    attn_softcap=2.0,
    final_softcap=3.0,
    transpose_gating=False,
  ),
  "full": GemmaConfig(
    vocab_size=64,
    num_layers=2,
    embed_dim=32,
    hidden_dim=48,
    num_heads=4,
    num_kv_heads=4,
    head_dim=16,
    query_pre_attn_scalar=8,  # embed_dim / num_heads, as in the 27B
    window=3,
    context=64,
    attn_softcap=2.0,
    final_softcap=3.0,
    transpose_gating=True,
  ),
}


@pytest.fixture(scope="package", params=CONFIGS)
def lm(request):
  """Each of the tiny models."""
  return make_lm(CONFIGS[request.param])


@pytest.fixture(scope="package")
def grouped():
  """The tiny model with four layers."""
  return make_lm(CONFIGS["grouped"])


def make_lm(config):
  """Random weights; norm scales away from 0, logits large enough to be cut."""
  key = jax.random.key(0)

  def disturb(path, x):
    if path[-1].key == "scale":
      return 0.3 * jax.random.normal(
        jax.random.fold_in(key, hash_of(path)), x.shape
      )
    return 20 * x if path[-1].key == "input_embedding" else x

  params = jax.jit(init_params, static_argnums=0)(config, key)
  return Lm(jax.tree_util.tree_map_with_path(disturb, params), config)


def hash_of(path):
  """A number for a path, the same in every process."""
  return sum(i * ord(c) for i, c in enumerate(jax.tree_util.keystr(path)))


@pytest.fixture(scope="package")
def tokens():
  """Two rows of 16 different tokens, none of them special."""
  rows = [jax.random.permutation(jax.random.key(i), 60)[:16] for i in (1, 2)]
  return jnp.stack(rows) + 4


@pytest.fixture(scope="package")
def saved(grouped, tmp_path_factory):
  """A directory with the float32 weights; copy it before changing it."""
  path = tmp_path_factory.mktemp("lm") / "saved"
  save_lm(grouped, path, dtype=jnp.float32)
  return path


@pytest.fixture(scope="package")
def tokenizer():
  """A tokenizer of 400 pieces, 256 of them single bytes."""
  source = inspect.getsource(dataclasses)[:20_000]
  return train_tokenizer([source, "0123456789" * 50], vocab_size=400)
