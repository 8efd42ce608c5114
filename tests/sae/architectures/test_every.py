"""Every architecture has these properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.sae import (
  BatchTopK,
  Gated,
  JumpRelu,
  Relu,
  TopK,
  UnnormalisedJumpRelu,
  normalisation,
  stack,
)
from jaxsae.sae.architectures.topk_base import TopKBase
from tests.sae.architectures.samples import (
  ALL,
  WIDTH,
  D,
  assert_close,
  draw_params,
  draw_tokens,
  make_inputs,
)

pytestmark = pytest.mark.slow

D_IN = 4  # of transcoders
LEARN_ALL = (JumpRelu, Gated)  # others have no threshold to learn
FREE = (Relu, UnnormalisedJumpRelu)  # directions of others are unit
KINDS = {
  "autoencoder": {},
  "transcoder": {"transcodes": True},
  "skip": {"transcodes": True, "skip": True},
}
ROWS, ASK = draw_tokens(), make_inputs(dead=3)


@pytest.fixture(params=ALL)
def make(request):
  return ALL[request.param]


@pytest.fixture(params=KINDS)
def case(request, make):
  """Makes an architecture, its parameters and tokens, in float64."""
  kind = KINDS[request.param]
  with jax.enable_x64(True):
    architecture = make(**kind)
    d_in = D_IN if kind else D
    params = draw_params(architecture, d_in, dtype=jnp.float64)
    rows = draw_tokens(d_in, D if kind else None, dtype=jnp.float64)
    yield architecture, params, rows, make_inputs(dtype=jnp.float64)


def with_final_threshold(architecture, params, rows, inputs):
  """Sets BatchTopK's threshold to the cut of this update."""
  if not isinstance(architecture, BatchTopK):
    return params
  post_update_stats = architecture.loss(params, rows, inputs)[
    1
  ].post_update_stats
  return params.replace(
    threshold=jnp.full(WIDTH, post_update_stats * (1 - 1e-12))
  )


def test_folding_keeps_active_latents_and_scales_the_output(case):
  """On raw activations the same latents fire as in training; ŷ is scaled."""
  architecture, params, rows, inputs = case
  scale_in = 7.3
  scale_out = 0.41 if architecture.transcodes else scale_in
  seen = architecture.loss(params, rows, inputs)[1]
  params = with_final_threshold(architecture, params, rows, inputs)
  sae = architecture.fold(params, scale_in, scale_out, target=inputs.target)

  counted = rows.mask > 0
  raw = scale_in * rows.x[counted]
  fired = jnp.sum(sae.encode(raw) > 0, axis=0)
  np.testing.assert_array_equal(fired, seen.fired)
  assert 0 < jnp.sum(fired) < fired.size * seen.tokens
  latents = sae.encode(raw) / scale_out
  if isinstance(architecture, FREE):  # directions were not unit before
    latents /= jnp.linalg.norm(params.w_dec, axis=-1)[None, :]
  whole = jax.tree.map(lambda x: x[counted], rows)
  made = architecture.errors(params, latents, whole)[-1] + whole.y
  assert_close(sae(raw), scale_out * made)
  off = scale_out * whole.y - sae(raw)
  assert_close(jnp.sum(off**2), scale_out**2 * seen.squared_error)


@pytest.mark.parametrize("sites", [1, 2])
def test_unfolding_makes_what_folds_to_the_same(case, sites):
  """It may be at other scales, and those of several sites."""
  architecture, params, rows, inputs = case
  if isinstance(architecture, TopKBase):  # whose directions are unit
    params = params.replace(w_dec=normalisation.unit_rows(params.w_dec))
  params = with_final_threshold(architecture, params, rows, inputs)
  sae = architecture.fold(params, 7.3, 7.3, target=inputs.target)
  into, out = jnp.array([0.7, 3.1])[:sites], jnp.array([5.3, 5.3])[:sites]
  scales = (into, out if architecture.transcodes else into)
  if isinstance(architecture, TopK) and not architecture.transcodes:
    scales = (out, out)  # its norms do not change
  scales = [x if sites > 1 else x[0] for x in scales]
  made = architecture.unfold(sae, *scales)
  assert_close(jnp.linalg.norm(made.w_dec, axis=-1), jnp.ones(WIDTH))
  assert jax.tree.structure(made) == jax.tree.structure(params)
  again = architecture.fold(made, *scales, target=inputs.target)
  raw = 7.3 * rows.x
  active = lambda sae: np.asarray(sae.encode(raw)) > 0
  np.testing.assert_array_equal(active(again), active(sae))
  assert_close(again(raw), sae(raw))


def test_what_an_architecture_cannot_do_does_not_start_it(make):
  architecture, jump = make(), draw_params(JumpRelu())
  params = jump.replace(w_dec=normalisation.unit_rows(jump.w_dec))
  topk = params.replace(k=3, threshold=jnp.zeros(WIDTH))
  wrong = {
    Relu: [params, topk],
    TopK: [
      params,
      topk.replace(threshold=params.threshold),
      topk.replace(w_dec=jump.w_dec),
    ],
  }
  for sae in wrong.get(type(architecture), [topk]):
    with pytest.raises(UserError):
      architecture.unfold(sae, 1.0, 1.0)
  dead = (
    topk
    if isinstance(architecture, TopK)
    else params.replace(threshold=jnp.zeros(WIDTH))
  )
  architecture.unfold(dead, 1.0, 1.0)
  with pytest.raises(UserError, match="norm 0"):
    architecture.unfold(dead.replace(w_dec=dead.w_dec.at[3].set(0)), 1.0, 1.0)


def test_every_parameter_has_a_gradient(case):
  architecture, params, rows, inputs = case
  grads, seen = architecture.gradients(params, rows, inputs)
  loss, _ = architecture.loss(params, rows, inputs)
  assert_close(seen.loss, loss * seen.tokens)
  assert jax.tree.structure(grads) == jax.tree.structure(params)
  learned = {
    name: np.asarray(grad)
    for name, grad in vars(grads).items()
    if isinstance(grad, jax.Array)
  }
  moved = {name for name, grad in learned.items() if grad.any()}
  unmoved = set() if isinstance(architecture, LEARN_ALL) else {"threshold"}
  assert moved == learned.keys() - unmoved


def test_the_encoder_of_a_transcoder_does_not_see_b_dec(case):
  architecture, params, rows, inputs = case
  moved = params.replace(b_dec=params.b_dec + 1)
  fired = [
    architecture.loss(some, rows, inputs)[1].fired for some in (params, moved)
  ]
  assert np.array_equal(*fired) == architecture.transcodes


def test_the_gradient_of_the_skip_is_a_finite_difference(make):
  """Latents do not depend on the skip, so differences are exact."""
  with jax.enable_x64(True):
    architecture = make(transcodes=True, skip=True)
    params = draw_params(architecture, D_IN, dtype=jnp.float64)
    rows, inputs = draw_tokens(D_IN, D, dtype=jnp.float64), make_inputs()
    move = jnp.asarray(np.random.default_rng(5).normal(size=(D_IN, D)))

    def value(t):
      moved = params.replace(w_skip=params.w_skip + t * move)
      # Gated's frozen decoder does not move.
      return architecture.loss(moved, rows, inputs)[1].squared_error

    slope = (value(1e-3) - value(-1e-3)) / 2e-3 / jnp.sum(rows.mask)
    grad = architecture.gradients(params, rows, inputs)[0].w_skip
    assert_close(jnp.sum(grad * move), slope, rtol=1e-7)


def test_tokens_that_do_not_count_change_nothing(case):
  architecture, params, rows, _ = case
  inputs = make_inputs(dead=5, dtype=jnp.float64)
  other = jnp.where(rows.mask[:, None] > 0, rows.x, 9.0)
  y = other if rows.y is rows.x else rows.y
  both = [
    architecture.gradients(params, some, inputs)
    for some in (rows, rows.replace(x=other, y=y))
  ]
  assert_close(*both)


def test_members_of_a_stack_are_independent(make):
  """Members have their own λ, target and dead latents."""
  architecture = make(prefixes=(0.5,))
  members = [draw_params(architecture, seed=seed) for seed in range(3)]
  asks = [
    make_inputs(0.1, 3.0),
    make_inputs(0.3, 5.0, dead=7),
    make_inputs(0.0, 1.0),
  ]
  rows = draw_tokens()
  together = lambda trees: jax.tree.map(lambda *x: jnp.stack(x), *trees)
  step = lambda params, inputs: _step(architecture, params, rows, inputs)
  stacked = jax.jit(jax.vmap(step))(together(members), together(asks))
  for i, (params, inputs) in enumerate(zip(members, asks, strict=True)):
    found = stack.member(stacked, i)
    assert_close(found, jax.jit(step)(params, inputs), rtol=1e-4, atol=1e-5)


def _step(architecture, params, rows, inputs):
  grads, seen = architecture.gradients(params, rows, inputs)
  moved = jax.tree.map(
    lambda p, g: p - 0.01 * g, params, architecture.project(grads, params)
  )
  return architecture.post_update(moved, seen.post_update_stats), seen, grads


def test_an_update_keeps_types_and_shapes(make):
  architecture = make()
  params = draw_params(architecture)
  after, seen, grads = jax.jit(lambda p: _step(architecture, p, ROWS, ASK))(
    params
  )
  described = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert described(after) == described(params) == described(grads)
  leaves = jax.tree.leaves((after, seen))
  assert all(leaf.dtype == jnp.float32 for leaf in leaves)
  assert not any(leaf.weak_type for leaf in leaves)


def test_directions_stay_unit_if_the_architecture_says_so(make):
  architecture = make()
  start = architecture.init(jax.random.key(0), D, D, WIDTH)
  after, seen, _ = _step(architecture, start, ROWS, ASK)
  norms = [jnp.linalg.norm(p.w_dec, axis=-1) for p in (start, after)]
  if isinstance(architecture, FREE):
    np.testing.assert_allclose(norms[0], 0.1, rtol=1e-5)
    assert jnp.all((norms[1] != norms[0]) | (seen.fired == 0))
  else:
    np.testing.assert_allclose(jnp.stack(norms), 1, rtol=1e-5)


def test_a_descent_reconstructs_better(make):
  """Some steps of gradient descent reduce the error."""
  architecture = make()
  params = architecture.init(jax.random.key(0), D, D, WIDTH)
  inputs = make_inputs(1e-3, 4.0)
  step = lambda p, _: _step(architecture, p, ROWS, inputs)[:2]
  seen = jax.lax.scan(step, params, length=200)[1]
  assert seen.squared_error[-1] < 0.8 * seen.squared_error[0]


@pytest.mark.parametrize("make", FREE)
def test_folded_directions_are_unit_and_zero_ones_stay_silent(make):
  params = draw_params(make())
  params = params.replace(w_dec=params.w_dec.at[3].set(0))
  sae = make().fold(params, 2.0, 2.0)
  norms = np.linalg.norm(sae.w_dec, axis=1)
  np.testing.assert_allclose(np.delete(norms, 3), 1, rtol=1e-5)
  latents = sae.encode(10 * ROWS.x)
  assert norms[3] == 0 and not latents[:, 3].any()
  assert np.isfinite(latents).all() and latents.any()
