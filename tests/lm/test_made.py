"""What an edit must not return is named with its site."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jax.tree_util import Partial

from jaxsae.errors import UserError
from jaxsae.lm import Clamp, Splice, Steer, edit, generate, splice

D, F = 32, 12
TOKENS = np.arange(5, 13).reshape(2, 4)


@pytest.fixture(scope="module")
def full(tiny):
  return tiny("full")


def nothing(x):
  """Forgets its `return`."""


MADE = {
  "nothing": (nothing, "None.*return"),
  "a number": (lambda x: 0.5, "0.5.*float"),
  "text": (lambda x: "x", "'x'.*str"),
  "a list": (lambda x: [1.0], "list"),
  "complex": (lambda x: x * 1j, "complex64.*real"),
  "bool": (lambda x: x > 0, "bool.*real"),
  "one number": (lambda x: jnp.sum(x), r"\[\].*shape"),
  "a vector": (lambda x: x[0, 0], r"\[32\].*shape"),
}


@pytest.mark.parametrize("made, said", MADE.values(), ids=MADE)
@pytest.mark.parametrize(
  "form", [lambda f: f, Partial], ids=["plain", "pytree"]
)
def test_what_is_no_activation_is_named(full, made, said, form):
  for go in (
    lambda: edit(full, TOKENS, {"resid.1": form(made)}),
    lambda: generate(full, [5, 6], edits={"resid.1": form(made)}, max_tokens=1),
  ):
    with pytest.raises(UserError, match=rf"resid\.1.*{said}"):
      go()
  with pytest.raises(UserError, match=rf"transcoder\.1.*{said}|mlp\.1.*{said}"):
    edit(full, TOKENS, splice("transcoder.1", form(made)))


def test_whole_numbers_and_numpy_are_activations(full):
  zeros = lambda x: np.zeros(x.shape, int)
  found = edit(full, TOKENS, {"resid.1": zeros})
  expected = edit(full, TOKENS, {"resid.1": lambda x: 0 * x})
  np.testing.assert_array_equal(found, expected)


@struct.dataclass
class Dense:
  w_enc: jax.Array
  w_dec: jax.Array

  def encode(self, x):
    return jax.nn.relu(x @ self.w_enc)

  def __call__(self, x):
    return self.encode(x) @ self.w_dec


SAE = Dense(np.ones((D, F), np.float32), np.ones((F, D), np.float32))


def test_an_edit_of_latents_that_returns_nothing_is_named(full):
  edits = {"resid.1": Splice(SAE, latents=nothing)}
  with pytest.raises(UserError, match=r"resid\.1.*latents.*None"):
    edit(full, TOKENS, edits)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_values_that_are_not_finite_are_named(full, bad):
  direction = np.ones(D, np.float32)
  with np.errstate(over="ignore"):
    times = np.float32(bad)
  steers = Steer(direction, bad), lambda x: x * times
  for steer in steers:
    edits = {"resid.0": Steer(direction, 1.0), "mlp.1": steer}
    with np.errstate(over="ignore"), pytest.raises(UserError, match=r"mlp\.1"):
      edit(full, TOKENS, edits)
    for temperature in (0, 1.0):
      with pytest.raises(UserError, match=r"mlp\.1.*not finite"):
        generate(
          full, [5, 6], edits=edits, max_tokens=3, temperature=temperature
        )


def test_a_later_step_that_is_not_finite_is_named(full):
  """The prompt is edited without harm, and the first new token is not."""
  late = lambda x: x / (x.shape[1] - 1)
  with pytest.raises(UserError, match=r"resid\.0.*not finite"):
    generate(full, [5, 6], edits={"resid.0": late}, max_tokens=3)


def test_a_model_of_nan_is_named(full):
  broken = jax.tree.map(lambda x: x * np.nan, full.replace(name="broken"))
  with pytest.raises(UserError, match=r"broken.*not finite"):
    generate(broken, [5, 6], max_tokens=1)


def test_inside_jit_nothing_is_looked_at(full):
  logits = jax.jit(lambda e: edit(full, TOKENS, {"resid.1": e}))
  assert np.isnan(logits(Steer(np.ones(D, np.float32), np.nan))).any()


NO_EDITS = {
  "a list": ([1], "mapping"),
  "text": ("resid.1", "mapping"),
  "a number": (5, "mapping"),
  "no edit": ({"resid.1": None}, r"resid\.1.*None"),
  "number for an edit": ({"resid.1": 5}, r"resid\.1.*5"),
  "a class": ({"resid.1": Steer}, r"resid\.1.*Steer"),
  "number for a site": ({5: jnp.abs}, "5 is not a site"),
}


@pytest.mark.parametrize("edits, said", NO_EDITS.values(), ids=NO_EDITS)
def test_other_edits_are_refused(full, edits, said):
  with pytest.raises(UserError, match=said):
    edit(full, TOKENS, edits)
  with pytest.raises(UserError, match=said):
    generate(full, [5, 6], edits=edits, max_tokens=1)


def test_numpy_in_an_edit_that_is_compiled_is_named(full):
  for plain in (lambda x: np.abs(np.asarray(x)), lambda x: x if x.sum() else 0):
    with pytest.raises(UserError, match=r"resid\.1.*jax\.numpy"):
      generate(full, [5, 6], edits={"resid.1": plain}, max_tokens=1)


@pytest.mark.parametrize(
  "latent",
  [12, -1, 1.5, True, "3", np.int64(12), np.array([1, 12]), [0, -1], [0.5]],
  ids=repr,
)
def test_a_latent_that_there_is_not_is_named(latent):
  with pytest.raises(UserError, match=r"Clamp.*latents 0 to 11"):
    Clamp(SAE, latent, 1.0)


def test_a_latent_in_a_jax_array_is_checked_where_it_is_used(full):
  clamp = Clamp(SAE, jnp.array(12), 1.0)
  with pytest.raises(UserError, match=r"latent 12.*0 to 11"):
    clamp(jnp.ones((1, 2, D)))
  with pytest.raises(UserError, match=r"latent 12.*0 to 11"):
    edit(full, TOKENS, {"resid.1": clamp})


def test_an_edit_is_one_line():
  for made in (Steer(SAE.w_dec[0], 8), Clamp(SAE, [1, 2], 0), Splice(SAE)):
    line = repr(made)
    assert type(made).__name__ in line
    assert "\n" not in line
  assert "strength=8.0" in repr(Steer(SAE.w_dec[0], 8))
  assert "float32[32]" in repr(Steer(SAE.w_dec[0], 8))
