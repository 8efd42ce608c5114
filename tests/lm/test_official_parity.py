"""The official library computes the same from the same parameters."""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.lm.attention import Packing, attention_mask

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings("ignore"),  # the official library's
]


@pytest.fixture(scope="module", autouse=True)
def lenient():
  """Allows rank promotion, which the official library relies on."""
  with jax.numpy_rank_promotion("allow"):
    yield


# Every site, every layer.


def test_every_activation_is_the_same(lm, padded, everything, read_official):
  tokens, segments = padded
  theirs = read_official(lm, tokens)
  ours = everything(lm, tokens, segments)
  assert_close(ours, theirs, real=segments > 0)


def test_its_own_parameters_need_no_conversion(
  lm, padded, everything, as_official, read_official
):
  tokens, segments = padded
  model = as_official(lm.config)
  params = jax.jit(model.init)(jax.random.key(0, impl="rbg"), tokens)["params"]
  lm = lm.replace(params=jax.tree.map(enlarge, params))
  theirs = read_official(lm, tokens)
  ours = everything(lm, tokens, segments)
  assert_close(ours, theirs, real=segments > 0)


def enlarge(x):
  """Enlarges weights, which the library draws too small to matter."""
  return 20 * x if x.any() else jnp.linspace(-0.5, 0.5, x.size)


@pytest.fixture(scope="module")
def padded(draw_tokens):
  """Makes rows of 17 and 13 tokens; segment 0 is padding, of token 0."""
  tokens = draw_tokens(2, 17).at[1, 13:].set(0)
  return tokens, (tokens > 0).astype(jnp.int32)


# The windows are shorter or longer than the blocks in which queries are taken.
LONG = pytest.mark.parametrize(
  "name, window",
  [("grouped", 5), ("full", 150), ("normed", 150), ("single_key", 5)],
)


@LONG
def test_long_packed_rows_are_the_same(
  name, window, tiny, long_row, everything, read_official
):
  lm = tiny(name, window=window)
  tokens, packing, inputs = long_row
  theirs = read_official(lm, tokens, **inputs)
  ours = everything(lm, tokens, packing.segments, packing.positions)
  assert_close(ours, theirs, real=packing.segments > 0)


@pytest.fixture(scope="module")
def long_row(draw_tokens, pack):
  """Makes a row of documents of 140, 5 and 151 tokens and 4 of padding."""
  packing = Packing(*pack(1, 140, 5, 151, padding=4))
  inputs = {
    "positions": packing.positions,
    "attention_mask": attention_mask(packing, packing),
  }
  return draw_tokens(1, 300), packing, inputs


def assert_close(ours, theirs, real):
  """Asserts that activations differ by less than 1e-4, padding apart."""
  assert ours.keys() == theirs.keys()
  for what, x in ours.items():
    np.testing.assert_allclose(x[real], theirs[what][real], 0, 1e-4, what)


@pytest.mark.parametrize("name, window", [("grouped", 5), ("normed", 150)])
def test_bfloat16_is_more_exact_than_theirs(
  name,
  window,
  tiny,
  long_row,
  everything,
  read_official,
  in_dtype,
  check_bfloat16,
  relative_error,
):
  tokens, packing, inputs = long_row
  half = in_dtype(jnp.bfloat16, tiny(name, window=window))
  where = packing.segments, packing.positions
  exact = everything(in_dtype(jnp.float32, half), tokens, *where)
  ours = everything(half, tokens, *where)
  theirs = read_official(half, tokens, **inputs)
  check_bfloat16(ours, theirs, exact)
  # Measured on 2026-11-21: 0.70 and 0.73. Their norms round on the way.
  assert relative_error(ours, theirs, exact) < 0.9


# Running the official library.


@pytest.fixture(scope="module")
def read_official(as_official):
  """read_official(lm, tokens, …): returns what `everything` does."""

  def read(lm, tokens, **inputs):
    model, variables = as_official(lm.config), {"params": lm.params}
    sites = read_sites(model, variables, tokens, inputs)
    output = model.apply(variables, tokens, **inputs)
    return sites | {"logits": output.logits}

  return jax.jit(read)


def read_sites(model, variables, tokens, inputs):
  """Reads every site of the official model.

  The library's `__call__` is under `nn.jit`, which remembers a trace and then
  no interceptor sees anything; what it calls inside is not.
  """
  seen = {}

  def watch(call, args, kwargs, context):
    output = call(*args, **kwargs)
    layer, *module = context.module.path or [""]
    number = layer.removeprefix("layer_")
    if context.method_name != "__call__" or number == layer:
      return output
    if module == ["attn", "attn_vec_einsum"]:
      heads = args[1]
      seen[f"attn.{number}"] = heads.reshape(*heads.shape[:2], -1)
    elif module == ["pre_ffw_norm"]:
      seen[f"mlp_in.{number}"] = output
    elif module == ["post_ffw_norm"]:
      seen[f"mlp.{number}"] = output
    elif not module:
      seen[f"resid.{number}"] = output[1]
    return output

  def blocks(self):
    encoded = self._encode_and_get_inputs(tokens=tokens, **inputs)
    return self._apply_attention(encoded, None)

  with flax.linen.intercept_methods(watch):
    model.apply(variables, method=blocks)
  return seen
