"""An update from pairs equals the update from all latents."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.sae import (
  BatchTopK,
  JumpRelu,
  Kernel,
  Sae,
  UnnormalisedJumpRelu,
  UpdateInputs,
  UpdateTokens,
  sparse,
)
from jaxsae.sae.penalty import L0, BatchQuadratic, Frequency, Quadratic, Tanh
from jaxsae.sae.sparse.pairs import find

D, F = 16, 2048  # two chunks
KERNEL = Kernel(0.05)
ARCHITECTURES = [
  JumpRelu(kernel=KERNEL, penalties=penalties)
  for penalties in [
    (L0(),),
    (Quadratic(), Frequency(0.1)),
    (BatchQuadratic(),),
    (L0(), Frequency(0.02)),
    (),
  ]
]


def told(sample, coefficient=0.01, target=20.0):
  """Makes the arguments of gradients apart from the autoencoder."""
  _, x, mask, dead = sample
  inputs = UpdateInputs(jnp.float32(coefficient), jnp.float32(target), dead)
  return UpdateTokens(x, x, mask), inputs


def samples(n, width=F, threshold=0.6, seed=0):
  """Makes an autoencoder, tokens, a mask with zeros, and dead latents.

  Of 2048 latents some 40 are active, and some 15 in the kernel.
  """
  random = functools.partial(jax.random.normal, dtype=jnp.float32)
  keys = jax.random.split(jax.random.key(seed), 4)
  sae = (
    JumpRelu(threshold=threshold)
    .init(keys[0], D, D, width)
    .replace(
      b_enc=0.05 * random(keys[1], (width,)),
      b_dec=0.10 * random(keys[2], (D,)),
    )
  )
  x = random(keys[3], (n, D)) / np.sqrt(D)
  mask = (jnp.arange(n) % 7 != 3).astype(jnp.float32)
  return sae, x, mask, jnp.arange(width) % 5 == 0


def both(sample, architecture, budget):
  """Returns the results of the dense path, and those from pairs."""
  given = sample[0], *told(sample)
  pairs = lambda *given: sparse.gradients(architecture, *given, budget)
  return jax.jit(architecture.gradients)(*given), jax.jit(pairs)(*given)


def assert_equal(dense, pairs):
  """Asserts equality up to rounding, relative to each array's largest value."""

  def check(path, a, b):
    most = float(jnp.max(jnp.abs(a))) or 1.0
    name = jax.tree_util.keystr(path)
    np.testing.assert_allclose(b / most, a / most, atol=1e-5, err_msg=name)

  jax.tree_util.tree_map_with_path(check, dense, pairs)


@pytest.mark.parametrize("n", [1, 50, 96])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_gradient_is_that_of_the_dense_path(n, architecture):
  dense, pairs = both(samples(n), architecture, 300)
  assert np.any(dense[0].threshold)
  assert_equal(dense, pairs)


def test_directions_need_not_be_unit():
  sae, *rest = samples(50)
  sae = sae.replace(w_dec=sae.w_dec * jnp.linspace(0.2, 3, F)[:, None])
  assert_equal(*both((sae, *rest), UnnormalisedJumpRelu(kernel=KERNEL), 300))


@pytest.mark.parametrize("width", [1, 24, 1536])
def test_widths_need_not_be_powers_of_two(width):
  sample = samples(40, width, threshold=0.2)
  assert_equal(*both(sample, ARCHITECTURES[1], width))


def test_with_more_pairs_than_the_budget_the_dense_path_is_used():
  """The results are equal bit for bit; within the budget they are rounded."""
  differs = lambda a, b: bool(jnp.any(a != b))
  for budget, rounded in [(0, False), (5, False), (20, False), (300, True)]:
    dense, pairs = both(samples(96), ARCHITECTURES[1], budget)
    found = any(jax.tree.leaves(jax.tree.map(differs, dense, pairs)))
    assert found == rounded, budget


def near(sae, x, mask):
  """Finds latents and tokens of the pairs from all pre-activations."""
  pre = (x - sae.b_dec[None, :]) @ sae.w_enc + sae.b_enc[None, :]
  above = pre - sae.threshold[None, :] > -KERNEL.bandwidth / 2
  return np.argwhere(np.asarray(above & (mask[:, None] > 0)).T)


def search(sae, x, mask, room):
  centred = x - sae.b_dec[None, :]
  return find(sae, centred, mask > 0, KERNEL.bandwidth, room)


@pytest.mark.parametrize("threshold", [-9.0, 0.0, 0.6, 9.0])
def test_all_pairs_are_found_in_the_order_of_latents(threshold):
  """Covers all numbers of pairs, from every possible one to none."""
  sae, x, mask, _ = samples(64)
  sae = sae.replace(threshold=jnp.full(F, threshold))
  pairs = search(sae, x, mask, 64 * F)
  assert not pairs.overflow
  latent, token = (v[: pairs.count] for v in (pairs.latent, pairs.token))
  found = np.stack([latent, token], axis=1)
  assert (np.diff(found[:, 0]) >= 0).all()
  expected = near(sae, x, mask)
  np.testing.assert_array_equal(found[np.lexsort(found.T[::-1])], expected)
  pre = (x - sae.b_dec[None, :]) @ sae.w_enc + sae.b_enc[None, :]
  np.testing.assert_allclose(
    pairs.pre[: pairs.count], pre[token, latent], atol=1e-6
  )


def test_there_is_room_for_the_stated_number_of_pairs():
  sae, x, mask, _ = samples(64)
  count = len(near(sae, x, mask))
  assert count > 1000
  assert not search(sae, x, mask, count).overflow
  assert search(sae, x, mask, count).count == count
  assert search(sae, x, mask, count - 1).overflow


def test_where_chunks_begin():
  sae, x, mask, _ = samples(64)
  pairs = search(sae, x, mask, 64 * F)
  in_first = int(np.sum(near(sae, x, mask)[:, 0] < F // 2))
  np.testing.assert_array_equal(pairs.starts, [0, in_first, pairs.count])


def test_an_update_without_tokens_that_count():
  sae, x, mask, dead = samples(32)
  assert_equal(*both((sae, x, 0 * mask, dead), ARCHITECTURES[0], 10))


def test_a_stack_is_trained_member_by_member():
  """Each member's own number of pairs decides between the two paths."""
  members = [samples(64, threshold=t, seed=s) for s, t in [(0, 0.6), (1, 0.1)]]
  stack = jax.tree.map(lambda *x: jnp.stack(x), *(m[0] for m in members))
  given, architecture = told(members[0]), ARCHITECTURES[0]

  @jax.jit
  def of_stack(stack):
    one = lambda sae: sparse.gradients(architecture, sae, *given, 200)
    return jax.lax.map(one, stack)

  every = of_stack(stack)
  for i, (sae, *_) in enumerate(members):
    one = jax.tree.map(lambda a, i=i: a[i], every)
    assert_equal(architecture.gradients(sae, *given), one)


def test_pre_activations_never_exist_as_a_whole():
  n, width = 256, 32_768
  shapes = jax.eval_shape(lambda: samples(n, width))
  from_pairs = lambda sae, x, mask: search(sae, x, mask, 4 * n)
  memory = jax.jit(from_pairs).lower(*shapes[:3]).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 4 * n * width / 8


@pytest.mark.parametrize(
  "architecture",
  [
    JumpRelu(kernel=KERNEL, penalties=(L0(), Tanh())),
    JumpRelu(kernel=Kernel(0.05, to_input=True)),
    JumpRelu(prefixes=(0.5,)),
    BatchTopK(),
  ],
)
def test_architectures_with_other_gradients_are_refused(architecture):
  assert not sparse.supports(architecture)
  with pytest.raises(UserError, match="not active"):
    both(samples(32), architecture, 300)


def test_what_has_no_pair_has_no_gradient_but_to_wake():
  """With β₁ = 0 such a latent stays where it is."""
  sae, x, mask, dead = samples(64)
  sae = sae.replace(threshold=sae.threshold.at[:100].set(9.0))
  _, (grads, seen) = both((sae, x, mask, dead), ARCHITECTURES[0], 300)
  quiet = grads.replace(
    w_enc=grads.w_enc[:, :100].T, w_dec=grads.w_dec[:100], b_dec=jnp.zeros(())
  )
  assert isinstance(quiet, Sae)
  for rows in (quiet.w_enc, quiet.w_dec, quiet.b_enc[:100]):
    assert not rows.any()
  assert not seen.fired[:100].any()
  np.testing.assert_array_equal(grads.threshold[:100] != 0, dead[:100])
