"""An autoencoder computes the published formula, and folds exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.sae import JumpRelu, Kernel, Sae, fold, normalisation
from jaxsae.sae import stack as stacks
from jaxsae.sae.normalisation import estimate_scale
from jaxsae.sae.penalty import L0, Quadratic
from tests.sae.toys import loss, stack

pytestmark = pytest.mark.slow

ALIVE = jnp.zeros(32, bool)


def random_sae(d=8, width=32, seed=0) -> Sae:
  keys = jax.random.split(jax.random.key(seed), 5)
  normal = jax.random.normal
  return Sae(
    w_enc=normal(keys[0], (d, width)),
    b_enc=0.1 * normal(keys[1], (width,)),
    w_dec=normal(keys[2], (width, d)),
    b_dec=normal(keys[3], (d,)),
    threshold=jax.random.uniform(keys[4], (width,)),
  )


def test_forward_is_the_published_one():
  sae, x = random_sae(), jax.random.normal(jax.random.key(1), (5, 8))
  w = {
    f.name: np.asarray(getattr(sae, f.name)) for f in dataclasses.fields(sae)
  }
  pre = np.asarray(x) @ w["w_enc"] + w["b_enc"]
  latents = np.maximum(pre, 0) * (pre > w["threshold"])
  np.testing.assert_allclose(sae.encode(x), latents, rtol=1e-4, atol=1e-5)
  rebuilt = latents @ w["w_dec"] + w["b_dec"]
  np.testing.assert_allclose(sae(x), rebuilt, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 3, 8)])
def test_any_leading_axes(shape):
  sae = random_sae()
  x = jax.random.normal(jax.random.key(1), shape)
  assert sae(x).shape == shape
  assert sae.encode(x).shape == (*shape[:-1], sae.width)


def test_folding_keeps_latents_active_and_scales_magnitudes():
  sae, scale = random_sae(), 7.3
  raw = scale * jax.random.normal(jax.random.key(2), (64, 8))
  pre = (raw / scale - sae.b_dec[None]) @ sae.w_enc + sae.b_enc[None]
  latents = jnp.where(pre > sae.threshold[None], jax.nn.relu(pre), 0)
  rebuilt = latents @ sae.w_dec + sae.b_dec[None]

  folded = fold(sae, scale, scale)
  np.testing.assert_array_equal(folded.encode(raw) > 0, latents > 0)
  np.testing.assert_allclose(
    folded.encode(raw), scale * latents, rtol=1e-3, atol=1e-3
  )
  np.testing.assert_allclose(folded(raw), scale * rebuilt, rtol=1e-3, atol=1e-3)
  np.testing.assert_array_equal(folded.w_dec, sae.w_dec)


@pytest.mark.parametrize("scale", [8.0, 7.3])
def test_folding_changes_no_active_latent(scale):
  """L0 and the active set are equal, bit for bit; x̂ up to rounding.

  A scale that is no power of two rounds, which could tip only a value that is
  all but at its threshold; there is none in float64.
  """
  with jax.enable_x64(True):
    sae = jax.tree.map(lambda x: x.astype(jnp.float64), random_sae())
    raw = scale * jax.random.normal(jax.random.key(2), (2000, 8), jnp.float64)
    pre = (raw / scale - sae.b_dec[None]) @ sae.w_enc + sae.b_enc[None]
    assert jnp.min(jnp.abs(pre - sae.threshold[None])) > 1e-9
    latents = jnp.where(pre > sae.threshold[None], jax.nn.relu(pre), 0)
    folded = fold(sae, scale, scale)
    found = folded.encode(raw)
    np.testing.assert_array_equal(found > 0, latents > 0)
    np.testing.assert_array_equal((found > 0).sum(-1), (latents > 0).sum(-1))
    np.testing.assert_allclose(found, scale * latents, rtol=1e-9, atol=1e-12)
    rebuilt = scale * (latents @ sae.w_dec + sae.b_dec[None])
    np.testing.assert_allclose(folded(raw), rebuilt, rtol=1e-9, atol=1e-9)


def test_the_loss_is_that_of_the_folded_autoencoder():
  sae, x = random_sae(), jax.random.normal(jax.random.key(3), (64, 8))
  mask = (jnp.arange(64) % 3 > 0).astype(jnp.float32)
  architecture = JumpRelu(kernel=Kernel(0.1), penalties=(L0(),))
  _, seen = loss(sae, x, mask, ALIVE, architecture, 0.5, 1.0)
  folded = fold(sae, 1.0, 1.0)
  error = jnp.square(folded(x) - x).sum(-1)
  active = (folded.encode(x) > 0).sum(-1)
  np.testing.assert_allclose(
    seen.squared_error, (error * mask).sum(), rtol=1e-4
  )
  np.testing.assert_allclose(seen.fired.sum(), (active * mask).sum())
  np.testing.assert_allclose(
    seen.loss, ((error + 0.5 * active) * mask).sum(), rtol=1e-4
  )


def test_masked_tokens_change_nothing():
  sae, x = random_sae(), jax.random.normal(jax.random.key(3), (10, 8))
  mask = jnp.ones(10).at[4:].set(0)
  architecture = JumpRelu(kernel=Kernel(0.3), penalties=(Quadratic(),))
  value = lambda x: jax.value_and_grad(loss, has_aux=True)(
    sae, x, mask, ALIVE, architecture, 0.5, 4.0
  )
  one, other = value(x), value(x.at[4:].set(1e3))
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_stack_starts_as_published():
  three = stack(3, threshold=0.01)
  np.testing.assert_allclose(
    jnp.linalg.norm(three.w_dec, axis=-1), 1, rtol=1e-5
  )
  np.testing.assert_array_equal(three.w_enc, three.w_dec.mT)
  np.testing.assert_array_equal(three.threshold, np.float32(0.01))
  assert not three.b_enc.any() and not three.b_dec.any()
  assert not np.allclose(three.w_dec[0], three.w_dec[1])


def test_a_member_depends_only_on_its_seed_and_the_salt():
  init = lambda seeds, salt=0: stacks.init(JumpRelu(), seeds, 8, 8, 32, salt)
  alone, among = init([7]), init([3, 5, 7])
  np.testing.assert_array_equal(alone.w_dec[0], among.w_dec[2])
  assert not np.allclose(alone.w_dec[0], init([7], salt=1).w_dec[0])


def test_projected_gradients_only_rotate_directions():
  w = normalisation.unit_rows(jax.random.normal(jax.random.key(0), (32, 8)))
  grad = jax.random.normal(jax.random.key(1), (32, 8))
  left = normalisation.drop_parallel(grad, w)
  np.testing.assert_allclose(jnp.sum(left * w, -1), 0, atol=1e-5)
  dropped = grad - left
  parallel = jnp.sum(dropped * w, -1, keepdims=True) * w
  np.testing.assert_allclose(dropped, parallel, atol=1e-5)


def test_scale_brings_activations_to_unit_mean_squared_norm():
  x = 5 * jax.random.normal(jax.random.key(0), (4, 50, 8))
  mask = (jax.random.uniform(jax.random.key(1), (4, 50)) > 0.3).astype(x.dtype)
  scaled = x / estimate_scale(x, mask)
  squared = jnp.sum(jnp.square(scaled), -1)
  np.testing.assert_allclose((squared * mask).sum() / mask.sum(), 1, rtol=1e-5)


def test_waking_moves_the_thresholds_of_dead_latents_only():
  sae, x = random_sae(), jax.random.normal(jax.random.key(3), (10, 8))
  dead = jnp.arange(32) < 5

  def grad(dead):
    architecture = JumpRelu(kernel=Kernel(0.3), penalties=(L0(),))
    return jax.grad(loss, has_aux=True)(
      sae, x, jnp.ones(10), dead, architecture, 0.5, 4.0
    )[0]

  difference = jax.tree.map(jnp.subtract, grad(dead), grad(ALIVE))
  np.testing.assert_allclose(difference.threshold[:5], 1e-3, rtol=1e-2)
  assert not difference.threshold[5:].any()
  assert not jnp.any(difference.w_enc) and not jnp.any(difference.b_enc)


def test_a_direction_by_number_is_its_row():
  sae = random_sae()
  for latent in (0, 31, np.int64(7), jnp.array(7)):
    np.testing.assert_array_equal(sae.direction(latent), sae.w_dec[latent])


@pytest.mark.parametrize("latent", [32, 9999, -1, 1.5, True, "3", np.int64(32)])
def test_the_direction_of_a_latent_that_there_is_not_is_refused(latent):
  with pytest.raises(UserError, match=r"latents 0 to 31"):
    random_sae().direction(latent)


def test_an_autoencoder_is_one_line():
  line = repr(random_sae())
  assert line.startswith("Sae(w_enc=float32[8, 32], ")
  assert "\n" not in line
  assert "k=5" in repr(random_sae().replace(k=5))
