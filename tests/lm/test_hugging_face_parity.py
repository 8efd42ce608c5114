"""Hugging Face's Gemmas compute the same from a directory that we wrote."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.lm import Site, save_lm
from jaxsae.lm.sites import HUGGING_FACE
from tests.libraries import need

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings("ignore"),  # torch's own
]


@pytest.fixture(scope="module")
def directory(lm, tmp_path_factory):
  path = tmp_path_factory.mktemp("theirs") / "lm"
  save_lm(lm, path, dtype=jnp.float32)
  return path


def test_every_activation_is_the_same(
  lm, directory, draw_tokens, everything, read_theirs
):
  tokens = draw_tokens(2, 150)  # longer than a window or a block of queries
  theirs = read_theirs(directory, "float32", tokens)
  assert_close(everything(lm, tokens), theirs)


def test_padding_changes_no_token(
  lm, directory, draw_tokens, everything, read_theirs
):
  tokens = draw_tokens(2, 17)
  segments = jnp.ones_like(tokens).at[1, 13:].set(0)
  theirs = read_theirs(directory, "float32", tokens, segments)
  assert_close(everything(lm, tokens, segments), theirs, real=segments > 0)


def assert_close(ours, theirs, real=...):
  """Asserts that activations differ by less than 1e-4, padding apart."""
  assert ours.keys() == theirs.keys()
  for what, x in ours.items():
    np.testing.assert_allclose(x[real], theirs[what][real], 0, 1e-4, what)


def test_bfloat16_is_nearly_the_same(
  lm,
  directory,
  draw_tokens,
  everything,
  read_theirs,
  in_dtype,
  check_bfloat16,
  relative_error,
):
  tokens = draw_tokens(2, 150)
  half = in_dtype(jnp.bfloat16, lm)
  exact = everything(in_dtype(jnp.float32, half), tokens)
  ours = everything(half, tokens)
  theirs = read_theirs(directory, "bfloat16", tokens)
  check_bfloat16(ours, theirs, exact)
  # Measured on 2026-11-21: 0.89 to 0.95.
  assert relative_error(ours, theirs, exact) < 1


# Running Hugging Face's model.


@pytest.fixture(scope="module")
def read_theirs():
  """read_theirs(directory, dtype, tokens, mask): what `everything` gives."""
  torch = need("torch")
  from transformers import AutoModelForCausalLM

  def read(directory, dtype, tokens, mask=None):
    model = AutoModelForCausalLM.from_pretrained(
      directory, attn_implementation="eager", dtype=getattr(torch, dtype)
    )
    as_torch = lambda x: None if x is None else torch.tensor(np.asarray(x))
    seen = watch(model)
    with torch.no_grad():
      output = model(as_torch(tokens), attention_mask=as_torch(mask))
    seen["logits"] = output.logits.float().numpy()
    return seen

  return read


def watch(model):
  """Returns {"resid.0": array, …}, filled as `model` runs."""
  seen = {}

  def hook(site, kind):
    def read(module, args, output):
      x = args if kind == "input" else output
      seen[str(site)] = (x[0] if isinstance(x, tuple) else x).float().numpy()

    return read

  for layer in range(model.config.num_hidden_layers):
    for where, name in HUGGING_FACE.items():
      path, _, kind = name.format(layer=layer).rpartition(".")
      module = model.get_submodule(path)
      module.register_forward_hook(hook(Site(where, layer), kind))
  return seen
