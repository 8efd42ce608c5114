"""Our Gemma 2 against Hugging Face's, the official one and its own promises."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae import lm as lms
from jaxsae.errors import UserError
from jaxsae.lm import Lm, Site, capture, init_params, save_lm
from jaxsae.lm.attention import Row, attention_mask
from jaxsae.lm.sites import HUGGING_FACE, WHERE

logits = jax.jit(Lm.logits)  # an eager pass compiles each operation by itself
SIZES = {"2B": lms.gemma2_2b, "9B": lms.gemma2_9b, "27B": lms.gemma2_27b}


def close(ours, theirs, atol=1e-4):
  np.testing.assert_allclose(np.asarray(ours), theirs, atol=atol)


def sites(config):
  return [Site(w, layer) for layer in range(config.num_layers) for w in WHERE]


# Against Hugging Face.


@pytest.mark.filterwarnings("ignore")  # torch's own
def test_hugging_face_computes_the_same(lm, tokens, tmp_path):
  import torch
  from transformers import Gemma2ForCausalLM

  save_lm(lm, tmp_path / "saved", dtype=jnp.float32)
  theirs = Gemma2ForCausalLM.from_pretrained(
    tmp_path / "saved", attn_implementation="eager", dtype=torch.float32
  )
  seen = watch(theirs, sites(lm.config))
  with torch.no_grad():
    seen["logits"] = theirs(torch.tensor(np.asarray(tokens))).logits
  for what, x in everything(lm, tokens).items():
    close(x, seen[what])


def watch(model, sites):
  """{str(site): array}, filled as `model` runs; HUGGING_FACE says where."""
  seen = {}

  def hook(site, kind):
    def read(module, args, output):
      x = args if kind == "input" else output
      seen[str(site)] = (x[0] if isinstance(x, tuple) else x).numpy()

    return read

  for site in sites:
    name = HUGGING_FACE[site.where].format(layer=site.layer)
    path, _, kind = name.rpartition(".")
    model.get_submodule(path).register_forward_hook(hook(site, kind))
  return seen


# Against the official library.


@pytest.fixture(scope="module")
def official():
  """GemmaConfig → the official Transformer; its import takes seconds."""
  from gemma.gm import nn
  from gemma.gm.nn import _config, _modules

  types = _modules.AttentionType
  by = _config.QueryPreAttentionNormalisation

  def build(c):
    scale_by = {
      c.embed_dim // c.num_heads: by.BY_ONE_OVER_SQRT_EMBED_DIM_DIV_NUM_HEADS,
      c.head_dim: by.BY_ONE_OVER_SQRT_HEAD_DIM,
    }
    config = _config.TransformerConfig(
      num_embed=c.vocab_size,
      embed_dim=c.embed_dim,
      hidden_dim=c.hidden_dim,
      num_heads=c.num_heads,
      num_kv_heads=c.num_kv_heads,
      head_dim=c.head_dim,
      final_logit_softcap=c.final_softcap,
      attn_logits_soft_cap=c.attn_softcap,
      attention_types=(types.LOCAL_SLIDING, types.GLOBAL) * (c.num_layers // 2),
      use_post_attn_norm=True,
      use_post_ffw_norm=True,
      sliding_window_size=c.window,
      transpose_gating_einsum=c.transpose_gating,
      query_pre_attn_norm=scale_by[c.query_pre_attn_scalar],
    )
    return nn.Transformer(config=config)

  return build


def run_official(model, lm, tokens, **packing):
  with jax.numpy_rank_promotion("allow"):
    run = jax.jit(lambda *args: model.apply(*args, **packing).logits)
    return run({"params": lm.params}, tokens)


@pytest.mark.filterwarnings("ignore")
def test_the_official_model_computes_the_same(lm, tokens, official):
  theirs = run_official(official(lm.config), lm, tokens)
  close(logits(lm, tokens), theirs)


@pytest.mark.filterwarnings("ignore")
def test_the_official_model_computes_the_same_packed(lm, tokens, official):
  segments, positions = packed(tokens)
  theirs = run_official(
    official(lm.config),
    lm,
    tokens,
    positions=positions,
    attention_mask=attention_mask(*[Row(segments, positions)] * 2),
  )
  close(logits(lm, tokens, segments, positions), theirs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", SIZES)
def test_real_sizes_have_the_official_names_and_shapes(size, official):
  config = SIZES[size]()
  row = jnp.zeros((1, 1), jnp.int32)
  with jax.numpy_rank_promotion("allow"):
    theirs = jax.eval_shape(official(config).init, jax.random.key(0), row)
  assert shapes(parameters(config)) == shapes(theirs["params"])


def shapes(tree):
  flat = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): x.shape for path, x in flat}


# Real sizes, in shapes alone.


def parameters(config):
  return jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))


@pytest.mark.parametrize(
  "size, published",
  [("2B", 2_614_341_888), ("9B", 9_241_705_984), ("27B", 27_227_128_320)],
)
def test_real_sizes_have_the_published_parameters(size, published):
  config = SIZES[size]()
  extra = 256_128 - 256_000  # rows that the official table adds to the others
  count = sum(x.size for x in jax.tree.leaves(parameters(config)))
  assert count == by_hand(config) == published + extra * config.embed_dim


def by_hand(c):
  d, heads = c.embed_dim, (c.num_heads, c.num_kv_heads, c.num_kv_heads)
  attention = sum(n * c.head_dim * d for n in (*heads, c.num_heads))
  layer = attention + 3 * d * c.hidden_dim + 4 * d
  return c.vocab_size * d + c.num_layers * layer + d


@pytest.mark.parametrize("size", SIZES)
def test_real_sizes_run(size):
  config = SIZES[size]()
  row = jax.ShapeDtypeStruct((2, 7), jnp.int32)
  logits, at = jax.eval_shape(
    lambda lm, row: (lm.logits(row), capture(lm, row, Site("attn", 3))),
    Lm(parameters(config), config),
    row,
  )
  assert (logits.shape, logits.dtype) == ((2, 7, 256_128), jnp.float32)
  d = config.num_heads * config.head_dim
  assert at[Site("attn", 3)].shape == (2, 7, d)


# Who sees whom.


@pytest.fixture(scope="module")
def influence(lm, tokens):
  """influence(depth)[t, s]: how much the token at s changes x at t, ≥ 0."""
  row = tokens[:1]
  table = lm.params["embedder"]["input_embedding"]

  def residual(table, depth):
    params = lm.params | {"embedder": {"input_embedding": table}}
    x = lm.replace(params=params).apply(row, num_blocks=depth)
    return x[0] @ jnp.sin(jnp.arange(32.0))  # [T]

  def measure(depth):
    gradient = jax.jit(jax.jacobian(residual), static_argnums=1)
    by_token = gradient(table, depth)  # [T, V, D]
    return np.abs(by_token[:, row[0]]).max(-1)

  return measure


def test_no_token_sees_a_later_one(lm, influence):
  seen = influence(lm.config.num_layers)
  now, other = np.indices(seen.shape)
  assert (seen[other > now] == 0).all()
  assert (seen[other <= now] > 0).all()


def test_a_local_layer_sees_no_further_than_its_window(lm, influence):
  seen = influence(1)  # the first layer is local
  now, other = np.indices(seen.shape)
  inside = (other <= now) & (now - other < lm.config.window)
  assert (seen[inside] > 0).all()
  assert (seen[~inside] == 0).all()


def packed(tokens):
  """Documents of 7 and 6 tokens, then 3 of padding, in every row."""
  segments = jnp.array([1] * 7 + [2] * 6 + [0] * 3)
  positions = jnp.array([*range(7), *range(6), *range(3)])
  rows = len(tokens)
  return jnp.tile(segments, (rows, 1)), jnp.tile(positions, (rows, 1))


def test_packed_documents_are_as_if_alone(lm, tokens):
  segments, positions = packed(tokens)
  together = everything(lm, tokens, segments, positions)
  for part in (slice(0, 7), slice(7, 13)):
    alone = everything(lm, tokens[:, part])
    for what, x in alone.items():
      close(together[what][:, part], x, atol=1e-5)


@jax.jit
def everything(lm, tokens, segments=None, positions=None):
  """The logits and every site."""
  packing = {"segments": segments, "positions": positions}
  seen = capture(lm, tokens, *sites(lm.config), **packing)
  return {"logits": lm.logits(tokens, **packing)} | {
    str(site): x for site, x in seen.items()
  }


def test_positions_count_from_zero_by_default(lm, tokens):
  ones = jnp.ones_like(tokens)
  positions = jnp.tile(jnp.arange(16), (2, 1))
  given = logits(lm, tokens, ones, positions)
  np.testing.assert_array_equal(logits(lm, tokens), given)


def test_only_differences_of_positions_matter(lm, tokens):
  ones = jnp.ones_like(tokens)
  positions = jnp.tile(jnp.arange(16) + 10, (2, 1))
  close(logits(lm, tokens), logits(lm, tokens, ones, positions))


# Numbers.


def test_logits_stay_below_the_cap(lm, tokens):
  largest = jnp.abs(logits(lm, tokens)).max()
  assert 0.5 < largest / lm.config.final_softcap < 1


def test_bfloat16_logits_are_nearly_the_same(lm, tokens):
  half = everything(jax.tree.map(lambda x: x.astype(jnp.bfloat16), lm), tokens)
  assert half["logits"].dtype == jnp.float32
  assert half["resid.1"].dtype == jnp.bfloat16
  difference = np.abs(half["logits"] - logits(lm, tokens)).mean()
  assert 0 < difference < 0.05


@pytest.mark.parametrize(
  "change", [{"num_kv_heads": 3}, {"head_dim": 7}], ids=str
)
def test_impossible_sizes_are_named(change):
  with pytest.raises(UserError, match=next(iter(change))):
    dataclasses.replace(lms.gemma2_tiny(), **change)
