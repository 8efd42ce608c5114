"""SAELens' own evaluation gives the same figures, on the same weights."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.evals import evaluate
from jaxsae.formats import Published, write_release
from jaxsae.lm import Site, Taps, save_lm
from jaxsae.lm.sites import HUGGING_FACE
from jaxsae.token_batch import TokenBatch
from tests.evals.samples import BOS, random_sae
from tests.libraries import need

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings("ignore"),  # torch's own
]

SITE, ROWS, TIME = Site("resid", 0), 16, 12
HOOK = HUGGING_FACE["resid"].format(layer=0).removesuffix(".output")


class Tokens:
  """Their store of activations, of which evaluation asks for tokens alone."""

  store_batch_size_prompts, context_size = ROWS // 2, TIME

  def __init__(self, tokens):
    self._tokens, self._next = tokens, 0

  def get_batch_tokens(self, size):
    import torch

    batch = self._tokens[self._next : self._next + size]
    self._next += size
    return torch.tensor(np.asarray(batch, np.int64))

  def reset_input_dataset(self):
    self._next = 0


@pytest.fixture(scope="module")
def theirs(lm, tmp_path_factory):
  """theirs(tokens, ignored): the figures of SAELens, flat."""
  need("torch")
  need("sae_lens")
  from sae_lens import SAE, evals
  from sae_lens.load_model import HookedProxyLM
  from sae_lens.training.activation_scaler import ActivationScaler
  from transformers import AutoModelForCausalLM

  top = tmp_path_factory.mktemp("theirs")
  save_lm(lm.replace(tokenizer=None), top / "lm", dtype=jnp.float32)
  model = AutoModelForCausalLM.from_pretrained(
    top / "lm", attn_implementation="eager"
  )
  hooked = HookedProxyLM(model.eval(), None)
  record = Published(sae_of(lm), Taps.of(SITE), metrics={"l0": 10.0})
  (file, *_) = write_release("sae_lens", [record], top / "sae")
  sae = SAE.load_from_disk((top / "sae" / file).parent)
  sae.cfg.metadata.hook_name = HOOK

  def run(tokens, ignored):
    amount = evals.EvalConfig(
      n_eval_reconstruction_batches=2,
      n_eval_sparsity_variance_batches=2,
      compute_kl=True,
      compute_ce_loss=True,
      compute_l2_norms=True,
      compute_sparsity_metrics=True,
      compute_variance_metrics=True,
      compute_featurewise_density_statistics=True,
    )
    groups, features = evals.run_evals(
      sae,
      Tokens(tokens),
      hooked,
      ActivationScaler(),
      amount,
      exclude_special_tokens=ignored,
    )
    flat = {k: x for group in groups.values() for k, x in group.items()}
    return flat | {"density": features["feature_density"]}

  return run


def sae_of(lm):
  return random_sae(SITE.width(lm.config), 32, 0)


def ours(lm, tokens):
  batch = TokenBatch(
    tokens=tokens,
    segments=np.ones_like(tokens),
    positions=np.tile(np.arange(TIME, dtype=np.int32), (ROWS, 1)),
  )
  return evaluate(lm, {"a": (SITE, sae_of(lm))}, lambda: [batch], 1)["a"]


@pytest.fixture(scope="module")
def text():
  """Rows without any special token."""
  rng = np.random.default_rng(0)
  return rng.integers(3, 40, (ROWS, TIME)).astype(np.int32)


def test_on_text_without_special_tokens_all_figures_are_theirs(
  lm, theirs, text
):
  found, expected = ours(lm, text), theirs(text, False)
  same = {
    "l0": found.l0,
    "l1": found.l1,
    "mse": found.mse,
    "cossim": found.cosine,
    "l2_ratio": found.norm_ratio,
    "explained_variance": 1 - found.fvu,
    "ce_loss_without_sae": found.clean_loss,
    "ce_loss_with_sae": found.spliced_loss,
    "ce_loss_with_ablation": found.zero_loss,
  }
  for name, value in same.items():
    assert value == pytest.approx(expected[name], rel=1e-4), name
  score = (found.zero_loss - found.spliced_loss) / (
    found.zero_loss - found.clean_loss
  )
  assert score == pytest.approx(expected["ce_loss_score"], rel=1e-3)
  np.testing.assert_allclose(found.density, expected["density"], atol=1e-6)
  # Theirs are means over batches, and over tokens with no next one too.
  bias = expected["relative_reconstruction_bias"]
  assert found.reconstruction_bias == pytest.approx(bias, rel=0.2)
  legacy = 1 - expected["explained_variance_legacy"]
  assert found.legacy_fvu_per_token == pytest.approx(legacy, rel=0.1)
  assert found.kl == pytest.approx(expected["kl_div_with_sae"], rel=0.2)


def test_behind_bos_the_differences_are_those_that_the_docs_name(
  lm, theirs, text
):
  """They leave out what BOS predicts, and ablate BOS too."""
  tokens = text.copy()
  tokens[:, 0] = BOS
  found, expected = ours(lm, tokens), theirs(tokens, [BOS])
  for name, value in {
    "l0": found.l0,
    "l1": found.l1,
    "mse": found.mse,
    "cossim": found.cosine,
    "explained_variance": 1 - found.fvu,
  }.items():
    assert value == pytest.approx(expected[name], rel=1e-4), name
  added = expected["ce_loss_with_sae"] - expected["ce_loss_without_sae"]
  counted = (TIME - 2) / (TIME - 1)
  assert found.delta_loss == pytest.approx(counted * added, rel=1e-3)
  assert found.zero_loss != pytest.approx(
    expected["ce_loss_with_ablation"], rel=1e-3
  )
