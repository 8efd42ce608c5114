"""Tiny Gemmas that have every feature, with weights that make each matter."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.lm import (
  GemmaConfig,
  Lm,
  Site,
  edit,
  init_params,
  save_lm,
  train_tokenizer,
)
from jaxsae.lm.sites import WHERE
from tests.libraries import need

# The caps are low enough to change the logits, the windows are shorter than a
# sequence, and heads · head_dim is not embed_dim.
SHARED = {"vocab_size": 64, "embed_dim": 32, "hidden_dim": 48, "context": 512}
GEMMA2 = SHARED | {"attn_softcap": 2.0, "final_softcap": 3.0}
# Five local layers, a global one, and a local one again.
GEMMA3 = SHARED | {
  "num_layers": 7,
  "num_heads": 4,
  "head_dim": 16,
  "window": 5,
  "attn_softcap": None,
  "final_softcap": None,
  "locals_per_global": 5,
  "qk_norm": True,
  "global_rope_base": 1_000_000.0,
}
CONFIGS = {
  "grouped": GemmaConfig(
    **GEMMA2,
    num_layers=4,
    num_heads=8,
    num_kv_heads=4,
    head_dim=8,
    query_pre_attn_scalar=8,
    window=5,
    transpose_gating=False,
  ),
  "full": GemmaConfig(
    **GEMMA2,
    num_layers=2,
    num_heads=4,
    num_kv_heads=4,
    head_dim=16,
    query_pre_attn_scalar=8,  # embed_dim / num_heads, as in the 27B
    window=3,
  ),
  "normed": GemmaConfig(
    **GEMMA3,
    num_kv_heads=2,
    query_pre_attn_scalar=8,  # embed_dim / num_heads, as in the 27B
    global_rope_scale=8.0,
  ),
  "single_key": GemmaConfig(**GEMMA3, num_kv_heads=1, query_pre_attn_scalar=16),
}


@pytest.fixture(scope="package")
def tiny():
  """tiny("full", window=9): makes one of the tiny models, with changes."""
  return lambda name, **changes: make_lm(
    dataclasses.replace(CONFIGS[name], **changes)
  )


@pytest.fixture(scope="package", params=CONFIGS)
def lm(request):
  """Makes each of the tiny models in turn."""
  return make_lm(CONFIGS[request.param])


@pytest.fixture(scope="package")
def grouped():
  """Makes the tiny Gemma 2 with four layers."""
  return make_lm(CONFIGS["grouped"])


def make_lm(config):
  """Makes random weights; norm scales differ from 0, logits reach the caps."""
  make = lambda key: init_params(config, key)
  shapes = jax.eval_shape(make, jax.random.key(0))
  return Lm(jax.tree_util.tree_map_with_path(draw, shapes), config)


def draw(path, leaf):
  """Draws a parameter by its path, with NumPy, which does not compile."""
  name = jax.tree_util.keystr(path)
  rng = np.random.default_rng([ord(letter) for letter in name])
  known = {"scale": 0.3, "input_embedding": 0.4}
  size = known.get(path[-1].key) or leaf.shape[-2] ** -0.5
  return jnp.asarray(size * rng.standard_normal(leaf.shape, np.float32))


@pytest.fixture(scope="package")
def tokens():
  """Makes two rows of 16 different tokens, none of them special."""
  rows = [jax.random.permutation(jax.random.key(i), 60)[:16] for i in (1, 2)]
  return jnp.stack(rows) + 4


@pytest.fixture(scope="package")
def draw_tokens():
  """draw_tokens(B, T): random tokens, none of them special."""
  return lambda *shape: jax.random.randint(jax.random.key(3), shape, 4, 64)


@pytest.fixture(scope="package")
def pack():
  """pack(rows, 7, 6, padding=3): segments and positions, int [rows, 16] each.

  Every row holds documents of these lengths.
  """

  def lay_out(rows, *lengths, padding=0):
    documents = [*enumerate(lengths, 1), (0, padding)]
    segments = np.concatenate([np.full(n, i) for i, n in documents])
    positions = np.concatenate([np.arange(n) for _, n in documents])
    tile = lambda x: jnp.asarray(np.tile(x, (rows, 1)))
    return tile(segments), tile(positions)

  return lay_out


@pytest.fixture(scope="package")
def sites_of():
  """GemmaConfig → all its sites."""
  return lambda config: [
    Site(where, layer) for layer in range(config.num_layers) for where in WHERE
  ]


@pytest.fixture(scope="package")
def everything(sites_of):
  """everything(lm, tokens, segments, positions): {"logits", "resid.0", …}."""

  def read(lm, tokens, segments=None, positions=None):
    seen = {}

    def reader(site):
      return lambda x: seen.setdefault(str(site), x)

    readers = {site: reader(site) for site in sites_of(lm.config)}
    packing = {"segments": segments, "positions": positions}
    return {"logits": edit(lm, tokens, readers, **packing)} | seen

  return jax.jit(read)  # an eager pass compiles each operation by itself


@pytest.fixture(scope="package")
def in_dtype():
  """in_dtype(jnp.bfloat16, lm): the model with such parameters."""
  return lambda dtype, lm: jax.tree.map(lambda x: x.astype(dtype), lm)


# How far from each other two implementations in bfloat16 may be. Root mean
# square and maximum, both as parts of the root mean square of what float32
# gives for the same rounded weights; twice what was measured on 2026-11-21 at
# the worst site of its kind, over the four models and 150 or 300 tokens:
#
#   between         attn        mlp         resid       mlp_in      logits
#   official, ours  0.018 0.23  0.030 0.37  0.019 0.11  0.018 0.16  0.019 0.12
#   HF, ours        0.022 0.29  0.027 0.30  0.018 0.12  0.018 0.15  0.019 0.15
#   float32, ours   0.017 0.20  0.021 0.20  0.013 0.08  0.014 0.11  0.014 0.11
#   float32, off.   0.015 0.17  0.025 0.28  0.016 0.12  0.016 0.11  0.016 0.10
#   float32, HF     0.017 0.17  0.022 0.21  0.014 0.09  0.014 0.15  0.014 0.13
#
# (official: two of the models. Ours is the closer to float32 on each.)
BFLOAT16 = {
  "attn": (0.045, 0.55),
  "mlp": (0.06, 0.8),
  "resid": (0.04, 0.25),
  "mlp_in": (0.04, 0.3),
  "logits": (0.04, 0.3),
}


@pytest.fixture(scope="package")
def check_bfloat16(error):
  """check_bfloat16(ours, theirs, exact): asserts the bounds."""

  def check(ours, theirs, exact):
    for what in exact:
      kind, _, _ = what.partition(".")
      found = error(ours, theirs, exact, what)
      assert (np.array(found) < BFLOAT16[kind]).all(), (what, *found)

  return check


@pytest.fixture(scope="package")
def error():
  """error(ours, theirs, exact, what): the difference of two activations.

  Root mean square and maximum, as parts of that of the exact one.
  """

  def measure(ours, theirs, exact, what):
    ours, theirs, exact = (np.float32(x[what]) for x in (ours, theirs, exact))
    apart = np.abs(ours - theirs) / np.sqrt(np.mean(exact**2))
    return np.sqrt(np.mean(apart**2)), apart.max()

  return measure


@pytest.fixture(scope="package")
def relative_error(error):
  """relative_error(ours, theirs, exact): our error divided by theirs."""

  def mean(found, exact):
    return np.mean([error(found, exact, exact, what)[0] for what in exact])

  return lambda ours, theirs, exact: mean(ours, exact) / mean(theirs, exact)


@pytest.fixture(scope="package")
def as_official():
  """GemmaConfig → the official Transformer; its import takes seconds."""
  need("gemma")
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
      attention_types=tuple(
        types.LOCAL_SLIDING if c.is_local(layer) else types.GLOBAL
        for layer in range(c.num_layers)
      ),
      use_post_attn_norm=True,
      use_post_ffw_norm=True,
      use_qk_norm=c.qk_norm,
      sliding_window_size=c.window,
      transpose_gating_einsum=c.transpose_gating,
      query_pre_attn_norm=scale_by[c.query_pre_attn_scalar],
      local_base_frequency=c.rope_base,
      global_base_frequency=c.global_rope_base,
      global_scale_factor=c.global_rope_scale,
    )
    return nn.Transformer(config=config, dtype=jnp.float32)

  return build


@pytest.fixture(scope="package")
def saved(grouped, tmp_path_factory):
  """Saves the float32 weights to a directory; copy it before changing it."""
  path = tmp_path_factory.mktemp("lm") / "saved"
  save_lm(grouped, path, dtype=jnp.float32)
  return path


@pytest.fixture(scope="package")
def tokenizer():
  """Trains a tokenizer of 400 pieces, 256 of them single bytes."""
  source = inspect.getsource(dataclasses)[:20_000]
  return train_tokenizer([source, "0123456789" * 50], vocab_size=400)
