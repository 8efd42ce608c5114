"""The published sizes have the right names and counts, and run in shapes."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jaxsae.lm import Lm, Site, capture, init_params
from jaxsae.lm.config import PUBLISHED
from tests.libraries import need

pytestmark = pytest.mark.slow

# What Hugging Face says of `google/gemma-…`: all parameters, and how many rows
# their embedding table has, where the official one has 256,128 or 262,144.
COUNTS = {
  "gemma2-2b": (2_614_341_888, 256_000),
  "gemma2-9b": (9_241_705_984, 256_000),
  "gemma2-27b": (27_227_128_320, 256_000),
  "gemma3-270m": (268_098_176, 262_144),
  "gemma3-1b": (999_885_952, 262_144),
  "gemma3-4b": (4_300_079_472, 262_208),
  "gemma3-12b": (12_187_325_040, 262_208),
  "gemma3-27b": (27_432_406_640, 262_208),
}
SEEING = {"gemma3-4b", "gemma3-12b", "gemma3-27b"}  # these read images too


@pytest.fixture(scope="module", params=PUBLISHED)
def name(request):
  return request.param


@pytest.fixture(scope="module")
def lm(name):
  """Makes the model with shapes for parameters."""
  config = PUBLISHED[name]()
  init = lambda key: init_params(config, key)
  return Lm(jax.eval_shape(init, jax.random.key(0)), config, name=name)


def test_as_many_parameters_as_published(name, lm):
  published, rows = COUNTS[name]
  extra = lm.config.vocab_size - rows
  text = published - vision(lm.config) * (name in SEEING)
  count = sum(x.size for x in jax.tree.leaves(lm.params))
  assert count == by_hand(lm.config) == text + extra * lm.config.embed_dim


def by_hand(c):
  """Counts parameters from the sizes alone."""
  d, heads = c.embed_dim, (c.num_heads, c.num_kv_heads, c.num_kv_heads)
  attention = sum(n * c.head_dim * d for n in (*heads, c.num_heads))
  norms = 4 * d + (2 * c.head_dim if c.qk_norm else 0)
  layer = attention + 3 * d * c.hidden_dim + norms
  return c.vocab_size * d + c.num_layers * layer + d


def vision(c):
  """Counts SigLIP So400m/14 at 896 pixels, its last norm and projection."""
  d, hidden, layers, patches = 1152, 4304, 27, (896 // 14) ** 2
  attention, mlp = 4 * (d * d + d), 2 * d * hidden + hidden + d
  layer = attention + mlp + 2 * 2 * d  # a layer norm has two vectors
  pixels = 14 * 14 * 3
  tower = layers * layer + 2 * d + patches * d + pixels * d + d
  return tower + d + d * c.embed_dim


def test_a_forward_pass_has_the_right_shapes(lm):
  c, at = lm.config, Site("attn", 3)
  row = jax.ShapeDtypeStruct((2, 7), jnp.int32)
  read = lambda lm, row: (lm.logits(row), capture(lm, row, at)[at])
  logits, heads = jax.eval_shape(read, lm, row)
  assert (logits.shape, logits.dtype) == ((2, 7, c.vocab_size), jnp.float32)
  assert heads.shape == (2, 7, c.num_heads * c.head_dim)


@pytest.mark.filterwarnings("ignore")  # the official library's
def test_names_and_shapes_are_the_official_ones(name, lm):
  row = jnp.zeros((1, 1), jnp.int32)
  with jax.numpy_rank_promotion("allow"):
    init = official(name).init
    theirs = jax.eval_shape(init, jax.random.key(0), row)["params"]
  assert shapes(lm.params) == shapes(theirs)


def shapes(tree):
  flat = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): x.shape for path, x in flat}


@pytest.mark.filterwarnings("ignore")
def test_every_other_field_is_the_official_one(name, lm, as_official):
  assert as_official(lm.config).config == official(name).config


def official(name):
  """`gemma3-4b` → the official `Gemma3_4B`, without its vision."""
  nn = need("gemma.gm.nn")

  family, size = name.split("-")
  model = getattr(nn, f"{family.capitalize()}_{size.upper()}")()
  text = dataclasses.replace(model.config, vision_encoder=None)
  return dataclasses.replace(model, config=text)
