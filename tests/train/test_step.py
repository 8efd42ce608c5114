"""The bucket step: the same on every mesh, compiled once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae import mesh as meshes
from jaxsae.errors import UserError
from jaxsae.lm import Site, capture
from jaxsae.mesh import MeshConfig
from jaxsae.plan import hlo
from jaxsae.sae import fold
from jaxsae.sae.stack import member
from jaxsae.train import outliers
from jaxsae.train import state as states
from jaxsae.train import step as steps
from jaxsae.train.group import place_stacks
from jaxsae.train.placement.layout import check_rows
from jaxsae.train.update import Activations
from tests.train import toys
from tests.train.toys import curve, start

pytestmark = pytest.mark.slow

SHAPES = [(8, 1), (4, 2), (2, 4), (1, 8)]


@pytest.fixture(scope="module")
def toy(tmp_path_factory, texts, lm_path):
  """The configuration of `config`, for curves that several tests share."""
  return toys.make_config(tmp_path_factory.mktemp("step"), texts, lm_path)


@pytest.fixture(scope="module")
def alone(toy):
  """Its curve on one device."""
  return curve(dataclasses.replace(toy, mesh=MeshConfig(1, 1)))[0]


@pytest.fixture(scope="module")
def together(toy):
  """Its curve on all of them."""
  return curve(toy)[0]


@pytest.mark.parametrize(("data", "model"), SHAPES)
def test_every_mesh_gives_the_same_run(config, replace, alone, data, model):
  """Sums differ in order, so a token at its threshold may change sides."""
  found, state = curve(replace(config, mesh=MeshConfig(data, model)))
  np.testing.assert_allclose(found, alone, rtol=2e-3)
  w_enc = state.stacks[0].sae.w_enc
  assert w_enc.addressable_shards[0].data.shape == (2, 32, 64 // 8)


def test_the_batch_mean_penalty_is_the_same_on_every_mesh(config, replace):
  batch = replace(
    config,
    sae__penalty="batch_quadratic",
    sae__sparsity_coefficient=(1.0,),
    sae__frequency_scale=0.2,
  )
  expected, _ = curve(replace(batch, mesh=MeshConfig(1, 1)), buckets=2)
  for shape in ((4, 2), (1, 8)):
    found, _ = curve(replace(batch, mesh=MeshConfig(*shape)), buckets=2)
    np.testing.assert_allclose(found, expected, rtol=2e-3, err_msg=str(shape))


@pytest.mark.parametrize("change", [
  {"penalty": "l0", "target_l0": (), "sparsity_coefficient": (1e-3, 1e-2)},
  {"penalty": "tanh", "target_l0": (), "sparsity_coefficient": (1e-3, 1e-2),
   "ste_to_input": True},
  {"penalty": "batch_quadratic", "frequency_scale": 0.1},
])  # fmt: skip
def test_every_penalty_trains(config, change):
  sweep = dataclasses.replace(config.sae, **change)
  seen, _ = curve(dataclasses.replace(config, sae=sweep))
  assert np.isfinite(seen).all()
  assert (seen[-1, :, 2] < seen[0, :, 2]).all()  # FVU


def test_directions_are_unit_after_every_bucket(config):
  mesh, source, state = start(config)
  step = None
  for _ in range(3):
    bucket = source.take().batch
    step = step or toys.compile_step(
      config, mesh, state, source.weights, bucket
    )
    state, _ = step(state, source.weights, bucket)
    for stack in state.stacks:
      norms = np.linalg.norm(stack.sae.w_dec, axis=-1)
      np.testing.assert_allclose(norms, 1, rtol=1e-5)


def test_metrics_describe_what_moves_thresholds(config, replace):
  mesh, source, state = start(config)
  was = np.asarray(state.stacks[0].sae.threshold)
  bucket = source.take().batch
  step = toys.compile_step(config, mesh, state, source.weights, bucket)
  state, (metrics, _) = step(state, source.weights, bucket)
  now = np.asarray(state.stacks[0].sae.threshold)
  np.testing.assert_allclose(
    metrics.figures["moved"],
    np.abs(now - was).mean(-1) / was.mean(-1),
    rtol=1e-4,
  )
  # Eight updates have been; the eighth, number 7 of 8, had 7/8 of λ.
  np.testing.assert_allclose(metrics.coefficient, 7 / 8 * 1e-2, rtol=1e-5)
  assert (metrics.figures["pull"] > 0).all() and (
    metrics.figures["pull"] < 1
  ).all()
  assert (metrics.density_max > metrics.l0 / 64).all()
  assert (metrics.density_max <= 1).all()


def test_without_a_penalty_the_pull_on_thresholds_is_zero(config, replace):
  none = replace(config, sae__optim__sparsity_warmup=10**9)
  mesh, source, state = start(none)
  bucket = source.take().batch
  step = toys.compile_step(none, mesh, state, source.weights, bucket)
  _, (metrics, _) = step(state, source.weights, bucket)
  assert (metrics.figures["pull"] < 1e-3).all()


def test_the_run_learns(config, replace):
  losses, _ = curve(config, buckets=6)
  assert (losses[-1, :, 0] < 0.6 * losses[0, :, 0]).all()


def test_a_stack_of_one_equals_its_member_of_a_stack(config, replace, together):
  first = replace(config, sae__target_l0=(4.0,))
  alone, _ = curve(first)
  # The loss is another penalty's mean; what is trained is the same.
  np.testing.assert_allclose(together[..., :1], alone, rtol=2e-3)


def test_sites_do_not_disturb_one_another(config, replace, together):
  alone, _ = curve(replace(config, sae__sites=(Site("resid", 1),)))
  np.testing.assert_allclose(together[:, :1], alone, rtol=2e-3)


def test_every_token_of_a_bucket_is_taken_once(config):
  mask = jnp.ones((8, 64))
  state = states.TrainState(jnp.array(3), jax.random.key(0), ())
  bucket = Activations({}, mask)
  order = steps.shuffle(state, bucket, updates=8)
  assert order.shape == (8, 8, 8)  # updates, rows, tokens
  for row in range(8):
    assert sorted(order[:, row].ravel().tolist()) == list(range(64))
  again = steps.shuffle(state, bucket, updates=8)
  np.testing.assert_array_equal(order, again)
  other = steps.shuffle(state.replace(step=jnp.array(4)), bucket, updates=8)
  assert (order != other).any()
  assert (order[:, 0] != order[:, 1]).any()


def test_harvest_sees_what_capture_sees(config):
  _, source, _ = start(config)
  bucket = source.take().batch
  read = source.read(source.weights, bucket)
  seen, mask = read.sites, read.mask
  site = Site("attn", 0)
  rows = jax.tree.map(lambda x: x[1], bucket)
  direct = capture(source.weights, rows.tokens, site, **rows.packing)[site]
  np.testing.assert_allclose(seen[site][:, 16:32], direct, atol=1e-5)
  text = source.weights.text_mask(bucket.tokens[1], bucket.segments[1])
  np.testing.assert_array_equal(mask[:, 16:32], text)
  assert 0 < text.sum() < text.size


def test_metrics_agree_with_the_folded_autoencoder(config, replace):
  """With a rate of 0, a bucket's figures are those of its first weights."""
  frozen = replace(config, sae__optim__lr=1e-30)
  mesh, source, state = start(frozen)
  first = state.stacks[0]
  scale = first.scale[1]
  sae = fold(member(first.sae, 1), scale, scale)
  bucket = source.take().batch
  read = source.read(source.weights, bucket)
  seen, mask = read.sites, read.mask
  x = np.asarray(seen[Site("resid", 1)])[np.asarray(mask) > 0]
  np.testing.assert_allclose(np.square(x / scale).sum(-1).mean(), 1, rtol=0.05)
  step = toys.compile_step(frozen, mesh, state, source.weights, bucket)
  _, (metrics, _) = step(state, source.weights, bucket)
  error = np.square(np.asarray(sae(x)) - x).sum()
  spread = np.square(x - x.mean(0)).sum()
  np.testing.assert_allclose(metrics.fvu[1], error / spread, rtol=1e-3)
  active = (np.asarray(sae.encode(x)) > 0).sum(-1).mean()
  np.testing.assert_allclose(metrics.l0[1], active, rtol=1e-2)


def test_idle_counts_tokens_since_a_latent_fired(config, replace):
  high = replace(config, sae__initial_threshold=1e3)
  mesh, source, state = start(high)
  bucket = source.take().batch
  step = toys.compile_step(high, mesh, state, source.weights, bucket)
  text = int(source.weights.text_mask(bucket.tokens, bucket.segments).sum())
  state, (metrics, _) = step(state, source.weights, bucket)
  np.testing.assert_array_equal(metrics.tokens_since_fired, text)


def test_the_step_needs_no_transfer(config):
  mesh, source, state = start(config)
  bucket = source.take().batch
  step = toys.compile_step(config, mesh, state, source.weights, bucket)
  with jax.transfer_guard("disallow"):
    state, metrics = step(state, source.weights, bucket)
  assert np.isfinite(metrics[0].loss).all()


def test_rows_the_mesh_does_not_divide_are_refused(config, replace):
  odd = replace(config, bucket__rows=4, mesh=MeshConfig(8, 1))
  with pytest.raises(UserError, match=r"mesh\.data=8 does not divide.*4"):
    check_rows(odd, meshes.make(odd.mesh))


def test_shuffling_costs_no_communication(config, replace):
  """Updates send only sums over `data`, never rows, weights or latents."""
  wide = replace(
    config, mesh=MeshConfig(8, 1), sae__placement="by_latent_and_row"
  )
  mesh, source, state = start(wide)
  bucket = source.take().batch
  program = toys.compile_step(
    wide, mesh, state, source.weights, bucket
  ).as_text()
  found = hlo.in_updates(program)
  assert {one.kind for one in found} == {"all-reduce"}


def test_the_largest_norm_is_told_in_units_of_the_median():
  site = Site("resid", 1)
  x = np.ones((2, 3, 4), np.float32)
  x[0, 1], x[1, 2] = 7, 100
  mask = np.ones((2, 3), np.float32)
  mask[1, 2] = 0  # what does not count is not told
  bucket = Activations({site: jnp.asarray(x)}, jnp.asarray(mask))
  assert float(outliers.largest(bucket)[site]) == 7


def test_outliers_at_one_site_are_left_out_at_all():
  first, second = Site("resid", 0), Site("resid", 1)
  x, y = np.ones((2, 2, 5, 4), np.float32)
  x[0, 1], x[1, 2], y[1, 4], y[0, 0] = 7, 100, 9, np.inf
  mask = np.ones((2, 5), np.float32)
  mask[1, 2] = 0
  bucket = Activations(
    {first: jnp.asarray(x), second: jnp.asarray(y)}, jnp.asarray(mask)
  )
  counted, found = outliers.leave_out(bucket, 6)
  expected = mask.copy()
  expected[0, 1] = expected[1, 4] = 0  # what is not finite is for others
  np.testing.assert_array_equal(counted.mask, expected)
  assert {site: int(n) for site, n in found.items()} == {first: 1, second: 1}
  same, none = outliers.leave_out(bucket, 10)
  np.testing.assert_array_equal(same.mask, mask)
  assert not any(none.values())


def test_what_is_left_out_is_not_trained_on(config, replace):
  """A run with a bound equals one whose text has these tokens masked."""
  bounded = replace(config, max_norm=1.2)
  mesh, source, state = start(bounded)
  groups = place_stacks(
    bounded.stacks, bounded.schedule, mesh, state.stacks, source.dtype
  )
  unbounded = dataclasses.replace(bounded.schedule, max_norm=None)
  free = tuple(dataclasses.replace(g, schedule=unbounded) for g in groups)
  bucket = source.read(source.weights, source.take().batch)
  order = steps.shuffle(state, bucket, bounded.updates_per_bucket)
  counted, found = outliers.leave_out(bucket, 1.2)
  assert all(0 < int(n) < counted.mask.sum() for n in found.values())
  run = jax.jit(steps.train_bucket, static_argnums=0)
  after, metrics = run(groups, state, bucket, order)
  expected, _ = run(free, state, counted, order)
  for a, b in zip(
    jax.tree.leaves(after.stacks), jax.tree.leaves(expected.stacks), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  for of_stack, stack in zip(metrics, bounded.stacks, strict=True):
    wanted = sum(int(found[site]) for site in stack.taps.reads)
    assert of_stack.figures["outliers"].tolist() == [wanted] * 2
