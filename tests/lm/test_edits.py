"""Edits apply their formulas to the tokens of their masks, and to no others."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxsae.errors import UserError
from jaxsae.lm import (
  Ablate,
  Clamp,
  Patch,
  Site,
  Splice,
  Steer,
  Taps,
  capture,
  edit,
  generate,
  run,
  splice,
)

B, T, D, F = 2, 16, 32, 12
SITE, PAIR = Site("resid", 1), Taps.transcoder(1)
MASK = np.arange(T)[None] % 3 == 0


@struct.dataclass
class Dense:
  """An autoencoder whose latents are the positive parts of products."""

  w_enc: jax.Array
  w_dec: jax.Array

  def encode(self, x):
    return jax.nn.relu(x @ self.w_enc)

  def __call__(self, x):
    return self.encode(x) @ self.w_dec


def normal(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape, np.float32)


def sae(seed=0):
  return Dense(normal(seed, D, F) / 6, normal(seed + 1, F, D))


X, DIRECTION = normal(5, B, T, D), normal(6, D)


def unit(direction):
  return direction / np.linalg.norm(direction)


def latents(x):
  return np.maximum(x @ sae().w_enc, 0)


def clamped(x, latent, value):
  return x + (value - latents(x)[..., [latent]]) * sae().w_dec[latent]


CASES = {
  "steer": (Steer(DIRECTION, 2), X + 2 * DIRECTION),
  "steer rows": (
    Steer(DIRECTION, np.array([[1.0], [-3.0]])),
    X + np.array([1, -3]).reshape(2, 1, 1) * DIRECTION,
  ),
  "ablate": (
    Ablate(DIRECTION),
    X - (X @ unit(DIRECTION))[..., None] * unit(DIRECTION),
  ),
  "ablate nothing": (Ablate(0 * DIRECTION), X),
  "clamp": (Clamp(sae(), 7, 2.5), clamped(X, 7, 2.5)),
  "ablate a latent": (Clamp(sae(), 3, 0), clamped(X, 3, 0)),
  "clamp two": (
    Clamp(sae(), [7, 3], [2.5, 0]),
    clamped(X, 7, 2.5) + clamped(X, 3, 0) - X,
  ),
  "splice": (Splice(sae()), latents(X) @ sae().w_dec),
  "splice a latent": (
    Splice(sae(), latents=Steer(np.eye(F)[4], 3)),
    latents(X) @ sae().w_dec + 3 * sae().w_dec[4],
  ),
  "keep the error": (
    Splice(sae(), keep_error=True, latents=Steer(np.eye(F)[4], 3)),
    X + 3 * sae().w_dec[4],
  ),
  "patch": (Patch(DIRECTION), np.broadcast_to(DIRECTION, X.shape)),
  "patch tokens": (Patch(X[:1]), np.broadcast_to(X[:1], X.shape)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_edit_does_what_its_formula_says(case):
  made, expected = case
  np.testing.assert_allclose(made(X), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("mask", [MASK, MASK[0], 2.0 * MASK], ids=str)
def test_other_tokens_keep_every_bit(case, mask):
  made, _ = case
  masked = made.replace(mask=mask)(X)
  where = np.broadcast_to(MASK[..., None], X.shape)
  np.testing.assert_array_equal(masked, np.where(where, made(X), X))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_edits_are_computed_in_float32_and_rounded_once(case):
  made, _ = case
  half = jnp.asarray(X, jnp.bfloat16)
  expected = made(half.astype(jnp.float32)).astype(jnp.bfloat16)
  found = made(half)
  assert found.dtype == jnp.bfloat16
  np.testing.assert_array_equal(found, expected)


def test_keeping_the_error_changes_no_bit_without_edits_of_latents():
  identity = Steer(np.eye(F)[4], 0)
  for inner in (None, identity):
    kept = Splice(sae(), keep_error=True, latents=inner)
    np.testing.assert_array_equal(kept(X), X)


def test_after_ablation_nothing_is_left_along_the_direction():
  left = np.asarray(Ablate(DIRECTION)(X)) @ unit(DIRECTION)
  np.testing.assert_allclose(left, 0, atol=1e-5)


# In a model.


@pytest.fixture
def compiled(caplog):
  """compiled(function): counts the programs compiled while it runs."""

  def count(function):
    caplog.clear()
    with jax.log_compiles():
      jax.block_until_ready(function())
    messages = [record.getMessage() for record in caplog.records]
    return sum(bool(re.match("Finished XLA comp", m)) for m in messages)

  return count


NEW_VALUES = {
  "steer": [Steer(DIRECTION, s) for s in (8, 4.5, np.float32(2))],
  "clamp": [Clamp(sae(i), i, v) for i, v in enumerate([3, 0.5])],
  "ablate": [Ablate(normal(i, D)) for i in range(2)],
  "splice": [Splice(sae(i)) for i in range(2)],
  "masked": [Steer(DIRECTION, 2.0, mask) for mask in (MASK, ~MASK)],
}


@pytest.mark.parametrize("edits", NEW_VALUES.values(), ids=NEW_VALUES)
def test_new_values_compile_nothing(grouped, tokens, compiled, edits):
  first, *others = ({SITE: e} for e in edits)
  plain = edit(grouped, tokens, first)
  for other in others:
    changed = []
    go = lambda e=other, c=changed: c.append(edit(grouped, tokens, e)) or c
    assert compiled(go) == 0
    assert np.abs(changed[0] - plain).max() > 1e-3


def test_another_shape_compiles(grouped, tokens, compiled):
  """Shows that the counter of compilations works."""
  edits, shorter = {SITE: Steer(DIRECTION, 1.0)}, tokens[:, :9]
  assert compiled(lambda: edit(grouped, shorter, edits)) == 1


def test_new_values_of_a_transcoder_compile_nothing(grouped, tokens, compiled):
  steered = lambda strength: splice(
    PAIR, Splice(sae(), latents=Steer(np.eye(F)[4], strength))
  )
  edit(grouped, tokens, steered(1))
  assert compiled(lambda: edit(grouped, tokens, steered(2.5))) == 0


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_compiled_and_eager_edits_agree(grouped, tokens, case):
  edits = {SITE: case[0]}
  found = edit(grouped, tokens, edits)
  np.testing.assert_allclose(found, run(grouped, tokens, edits), atol=1e-4)


def test_a_token_outside_the_vocabulary_is_named_with_edits_too(
  grouped, tokens
):
  with pytest.raises(UserError, match="Token 64 "):
    edit(grouped, tokens.at[0, 0].set(64), {SITE: Steer(DIRECTION, 1.0)})


def test_a_transcoder_keeps_what_the_mlp_wrote_elsewhere(grouped, tokens):
  """Its output is kept outside the mask, and inside if the error is kept."""
  sites = PAIR.input, PAIR.output
  read, wrote = capture(grouped, tokens, *sites).values()
  for made, expected in (
    (Splice(sae(), mask=MASK), np.where(MASK[..., None], sae()(read), wrote)),
    (
      Clamp(sae(), 7, 2.5),
      wrote + clamped(np.asarray(read), 7, 2.5) - np.asarray(read),
    ),
  ):
    found = run(grouped, tokens, splice(PAIR, made))
    by_hand = run(grouped, tokens, {PAIR.output: Patch(expected)})
    np.testing.assert_allclose(found, by_hand, atol=1e-4)


@pytest.mark.parametrize("made", [Steer(np.ones(8), 1), Ablate(np.ones(8))])
def test_what_changes_its_own_input_is_not_spliced_into_a_transcoder(made):
  with pytest.raises(UserError, match=r"mlp\.[0-9] itself"):
    splice(PAIR, made)


def test_the_input_of_a_transcoder_may_be_edited_too(grouped, tokens):
  double = {PAIR.input: lambda x: 2 * x}
  edits = double | splice(PAIR, lambda x: 3 * x)
  read = capture(grouped, tokens, PAIR.input)[PAIR.input]
  by_hand = run(grouped, tokens, {PAIR.output: Patch(6 * read)})
  np.testing.assert_allclose(run(grouped, tokens, edits), by_hand, atol=1e-5)


# Text.


def test_a_mask_may_choose_rows_of_a_generation(grouped, compiled):
  prompts = [[5, 6, 7], [8, 9, 10]]
  go = lambda *edits: generate(
    grouped, prompts, edits=dict(edits), max_tokens=6, cache=32
  )
  plain = go()
  steered = go((SITE, Steer(DIRECTION, 9, mask=np.array([[1], [1]]))))
  second = {SITE: Steer(DIRECTION, 9, mask=np.array([[0], [1]]))}
  assert plain[0] != steered[0]
  assert plain[1] != steered[1]
  assert go(*second.items()) == [plain[0], steered[1]]
  weaker = (SITE, Steer(DIRECTION, 0.5, mask=np.array([[0], [1]])))
  assert compiled(lambda: go(weaker)) == 0


@pytest.mark.parametrize(
  "edits",
  [
    {SITE: Steer(DIRECTION, 1.0, mask=MASK)},
    splice(PAIR, Splice(sae(), mask=MASK)),
  ],
  ids=["site", "pair"],
)
def test_a_mask_over_tokens_is_refused_in_a_generation(grouped, edits):
  with pytest.raises(UserError, match=r"\[1, 16\].*\[rows, 1\]"):
    generate(grouped, [5, 6], edits=edits, max_tokens=1)


# Trees of something else, and mistakes.


def test_trees_of_axes_have_the_class_of_edits():
  several = jax.tree.map(
    lambda *x: jnp.stack(x), *[Steer(DIRECTION, s) for s in (1.0, 2.0)]
  )
  axes = jax.tree.map(lambda _: 0, several)
  found = jax.vmap(lambda e, x: e(x), in_axes=(axes, None))(several, X)
  np.testing.assert_allclose(found[1], X + 2 * DIRECTION, rtol=1e-5)
  axes = jax.tree.map(lambda _: 0, Clamp(sae(), 1, 2))
  assert jax.tree.leaves(axes) == [0] * 4


@pytest.mark.parametrize(
  "make, said",
  [
    (lambda: Steer(DIRECTION[:5], 1.0)(X), r"Steer.*\[5\].*\[2, 16, 32\].*32"),
    (lambda: Ablate(X)(X), r"Ablate.*\[2, 16, 32\]"),
    (lambda: Steer(DIRECTION, 1.0, MASK[:, :7])(X), r"\[1, 7\].*\[2, 16\]"),
    (lambda: Steer(DIRECTION, np.ones(3))(X), r"\[3\].*\[2, 16\]"),
    (lambda: Patch(DIRECTION[:5])(X), r"\[5\].*\[2, 16, 32\]"),
    (lambda: Steer(None, 1.0)(X), r"Steer has a direction of None"),
    (lambda: Steer("up", 1.0)(X), r"Steer has a direction of 'up'"),
    (lambda: Ablate(DIRECTION * 1j)(X), r"Ablate .* complex64\[32\].*real"),
    (lambda: Patch({})(X), r"Patch has a value of {}"),
    (lambda: Clamp(sae(), 12, 1.0), r"latent 12.*0 to 11"),
    (lambda: Clamp(sae(), -1, 1.0), r"latent -1.*0 to 11"),
  ],
)
def test_mistakes_are_one_sentence(make, said):
  with pytest.raises(UserError, match=said):
    make()
