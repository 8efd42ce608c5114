"""Logit effects agree with NumPy, and with a model that is made linear."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.explore import logit_effects, promoted
from jaxsae.lm import GemmaConfig, Lm, Site, edit, init_params

CONFIG = GemmaConfig(
  vocab_size=40,
  num_layers=2,
  embed_dim=12,
  hidden_dim=16,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  query_pre_attn_scalar=8,
)
LAST = CONFIG.num_layers - 1
SITES = [Site(where, LAST) for where in ("resid", "mlp", "attn")]
LATENTS = 9


def make_lm(**changes):
  """Makes a model whose norms have gains other than 1."""
  config = dataclasses.replace(CONFIG, **changes)
  init = functools.partial(init_params, config)
  shapes = jax.eval_shape(init, jax.random.key(0))
  rng = np.random.default_rng(0)
  noise = lambda x: jnp.float32(0.3 * rng.normal(size=x.shape))
  return Lm(jax.tree.map(noise, shapes), config)


def make_directions(site):
  shape = (LATENTS, site.width(CONFIG))
  return jax.random.normal(jax.random.key(1), shape)


def by_numpy(lm, site, directions):
  params = jax.tree.map(np.asarray, lm.params)
  written = np.asarray(directions)
  if site.where == "attn":
    layer = params[f"layer_{site.layer}"]
    heads = written.reshape(LATENTS, CONFIG.num_heads, CONFIG.head_dim)
    out = layer["attn"]["attn_vec_einsum"]["w"]
    written = np.einsum("fnh,nhd->fd", heads, out)
    written = written * (1 + layer["post_attention_norm"]["scale"])
  gained = written * (1 + params["final_norm"]["scale"])
  effect = gained @ params["embedder"]["input_embedding"].T
  return effect - effect.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("site", [*SITES, Site("attn", 0)], ids=str)
@pytest.mark.parametrize("at_once", [2**24, 4 * 40])
def test_effects_are_both_ends_of_a_full_sort(monkeypatch, site, at_once):
  monkeypatch.setattr(promoted, "_MAX_LOGITS", at_once)
  lm, directions = make_lm(), make_directions(site)
  effects = logit_effects(lm, site, directions, 5)
  full = by_numpy(lm, site, directions)
  order = np.argsort(-full, axis=1)
  np.testing.assert_array_equal(effects.promoted, order[:, :5])
  np.testing.assert_array_equal(effects.suppressed, order[:, :-6:-1])
  for ids, values in zip(effects[::2], effects[1::2], strict=True):
    np.testing.assert_allclose(
      values, np.take_along_axis(full, ids, axis=1), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("site", SITES, ids=str)
def test_effects_are_those_of_adding_the_direction_to_a_linear_model(site):
  # An enormous epsilon makes every norm a division by its root; without a
  # soft cap and without the last MLP, all that follows the site is linear.
  epsilon = 1e6
  lm = make_lm(norm_eps=epsilon, final_softcap=1e6)
  norm = lm.params[f"layer_{LAST}"]["post_ffw_norm"]
  norm["scale"] = jnp.full_like(norm["scale"], -1)
  tokens = jnp.array([[2, 7, 11]])
  directions = make_directions(site)

  @jax.jit
  @jax.vmap
  def logits(direction):
    edits = {site: lambda x: x + direction[None, None]}
    return edit(lm, tokens, edits)[0, -1]

  changed = logits(directions) - logits(0 * directions)
  norms = 2 if site.where == "attn" else 1
  measured = np.asarray(changed) * np.sqrt(epsilon) ** norms
  measured -= measured.mean(axis=1, keepdims=True)

  effects = logit_effects(lm, site, directions, CONFIG.vocab_size)
  found = np.empty_like(measured)
  np.put_along_axis(found, effects.promoted, effects.promoted_values, axis=1)
  np.testing.assert_allclose(found, measured, rtol=2e-3, atol=2e-3)
