"""TransformerLens has the same activations under the names in `Site`."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.lm import save_lm
from jaxsae.lm.sites import TRANSFORMER_LENS
from tests.libraries import need

# What importing these two warns of is theirs.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ONLY_BRIDGE = ("mlp_in",)  # sites that HookedTransformer has no name for


def test_each_name_is_that_site_and_no_other(
  lm, draw_tokens, everything, sites_of, read_hooked
):
  check(lm, draw_tokens, everything, sites_of, read_hooked, ONLY_BRIDGE)


def test_each_name_is_that_site_and_no_other_over_the_bridge(
  grouped, draw_tokens, everything, sites_of, read_bridge
):
  check(grouped, draw_tokens, everything, sites_of, read_bridge, ())


def check(lm, draw_tokens, everything, sites_of, read_theirs, nameless):
  tokens = draw_tokens(2, 17)
  ours, theirs = everything(lm, tokens), read_theirs(lm, tokens)
  np.testing.assert_allclose(ours["logits"], theirs["logits"], 0, 1e-4)
  for site in sites_of(lm.config):
    found = [name for name in theirs if is_same(ours[str(site)], theirs[name])]
    if site.where in nameless:
      assert not found, site
      continue
    assert name_of(site) in found
    others = {name_of(other) for other in sites_of(lm.config) if other != site}
    assert not others & set(found), site


def name_of(site):
  return TRANSFORMER_LENS[site.where].format(layer=site.layer)


def is_same(ours, theirs):
  """Returns whether both agree; heads are an axis there, and joined here."""
  return theirs.size == ours.size and np.allclose(
    ours, theirs.reshape(ours.shape), 0, 1e-4
  )


@pytest.fixture(scope="module")
def save_theirs(tmp_path_factory):
  """save_theirs(lm): its directory, and Hugging Face's model from there."""
  torch = need("torch")
  need("transformer_lens")
  from transformers import AutoModelForCausalLM

  def save(lm):
    path = tmp_path_factory.mktemp("lens") / "lm"
    save_lm(lm, path, dtype=jnp.float32)
    return path, AutoModelForCausalLM.from_pretrained(
      path, attn_implementation="eager", dtype=torch.float32
    )

  return save


@pytest.fixture(scope="module")
def read_hooked(save_theirs):
  """read_hooked(lm, tokens): {"logits": array, their name: array, …}."""
  import transformer_lens as lens
  from transformer_lens.pretrained import weight_conversions

  def read(lm, tokens):
    _, source = save_theirs(lm)
    model = lens.HookedTransformer(as_theirs(lm.config))
    weights = weight_conversions.convert_gemma_weights(source, model.cfg)
    assert weights.keys() == dict(model.named_parameters()).keys()
    model.load_state_dict(weights, strict=False)  # buffers stay as they are
    return watch(model, tokens)

  return read


@pytest.fixture(scope="module")
def read_bridge(save_theirs):
  """read_bridge(lm, tokens): {"logits": array, their name: array, …}."""
  from transformer_lens.model_bridge import TransformerBridge

  def read(lm, tokens):
    path, source = save_theirs(lm)
    model = TransformerBridge.boot_transformers(str(path), hf_model=source)
    return watch(model, tokens)

  return read


def watch(model, tokens):
  import torch

  with torch.no_grad():
    logits, seen = model.run_with_cache(torch.tensor(np.asarray(tokens)))
  return {"logits": logits.numpy()} | {k: x.numpy() for k, x in seen.items()}


def as_theirs(c):
  """Converts a GemmaConfig to a HookedTransformerConfig."""
  from transformer_lens import HookedTransformerConfig

  local = {True: "local", False: "global"}
  never = -1.0
  only_gemma3 = {
    "use_qk_norm": True,
    "rotary_base_local": c.rope_base,
    "rotary_scaling_factor": c.global_rope_scale,
  }
  return HookedTransformerConfig(
    d_vocab=c.vocab_size,
    n_layers=c.num_layers,
    d_model=c.embed_dim,
    d_mlp=c.hidden_dim,
    n_heads=c.num_heads,
    n_key_value_heads=c.num_kv_heads,
    d_head=c.head_dim,
    attn_scale=c.query_pre_attn_scalar**0.5,
    window_size=c.window,
    n_ctx=c.context,
    attn_scores_soft_cap=c.attn_softcap or never,
    output_logits_soft_cap=c.final_softcap or never,
    eps=c.norm_eps,
    use_local_attn=True,
    attn_types=[local[c.is_local(layer)] for layer in range(c.num_layers)],
    rotary_base=c.global_rope_base,
    rotary_dim=c.head_dim,
    positional_embedding_type="rotary",
    act_fn="gelu_pytorch_tanh",
    normalization_type="RMS",
    final_rms=True,
    gated_mlp=True,
    use_normalization_before_and_after=True,
    **(only_gemma3 if c.qk_norm else {}),
  )
