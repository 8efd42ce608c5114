"""Tokens and packing as people type them are converted or told."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.lm import Steer, capture, edit, generate, load_lm

ROWS = [[5, 6, 7, 8], [9, 10, 11, 12]]
EDITS = {"resid.0": Steer(np.ones(32, np.float32), 1.0)}
PASSES = {
  "logits": lambda lm, tokens: lm.logits(tokens),
  "capture": lambda lm, tokens: capture(lm, tokens, "resid.0")["resid.0"],
  "edit": lambda lm, tokens: edit(lm, tokens, EDITS),
  "plain edit": lambda lm, tokens: edit(lm, tokens, {"resid.0": jnp.abs}),
}


@pytest.fixture(scope="module")
def full(tiny):
  return tiny("full")


@pytest.mark.parametrize("go", PASSES.values(), ids=PASSES)
def test_lists_and_numpy_are_tokens(full, go):
  expected = go(full, jnp.array(ROWS))
  for same in (ROWS, np.array(ROWS), np.array(ROWS, np.uint8)):
    np.testing.assert_array_equal(go(full, same), expected)


MISTAKES = {
  "one row": (jnp.array(ROWS[0]), r"\[4\].*tokens\[None\]"),
  "a flat list": (ROWS[0], r"\[4\].*tokens\[None\]"),
  "rank 3": (np.array([ROWS]), r"\[1, 2, 4\].*\[rows, tokens\]"),
  "floats": (jnp.array(ROWS, float), r"float32.*\[2, 4\].*int32"),
  "bools": (np.array(ROWS) > 6, r"bool.*\[2, 4\]"),
  "complex": (np.array(ROWS) * 1j, r"complex.*\[2, 4\]"),
  "text": ("hello", r"'hello'.*encode"),
  "texts": (["hello"], r"hello.*encode"),
  "none": (None, r"None.*\[\]"),
  "no rows": (np.zeros((0, 4), int), r"\[0, 4\]"),
  "no tokens": (np.zeros((2, 0), int), r"\[2, 0\]"),
  "no list": ([], r"\[0\]"),
  "unequal rows": ([[5, 6], [7]], r"\[\[5, 6\], \[7\]\].*length"),
  "too large": ([[2**70]], "object"),
  "not in the vocabulary": ([[5, 2**40]], str(2**40)),
}


@pytest.mark.parametrize("go", PASSES.values(), ids=PASSES)
@pytest.mark.parametrize("tokens, said", MISTAKES.values(), ids=MISTAKES)
def test_other_tokens_are_refused(full, go, tokens, said):
  with pytest.raises(UserError, match=said) as raised:
    go(full, tokens)
  assert "\n" not in str(raised.value)


def test_the_hints_work(full):
  tokens = jnp.array(ROWS[0])
  assert full.logits(tokens[None]).shape == (1, 4, 64)


@pytest.mark.parametrize("name", ["segments", "positions"])
def test_packing_may_be_a_list_and_fits_the_tokens(full, name):
  ones = np.ones((2, 4), np.int32)
  for go in (full.logits, lambda t, **p: edit(full, t, EDITS, **p)):
    found = go(ROWS, **{name: ones.tolist()})
    np.testing.assert_array_equal(found, go(ROWS, **{name: ones}))
    for wrong in (ones[:1], ones[0], ones.astype(float)):
      with pytest.raises(UserError, match=name.capitalize()):
        go(ROWS, **{name: wrong})


@pytest.mark.parametrize(
  "go",
  [
    lambda lm: capture(lm, ROWS, "resid.0"),
    lambda lm: edit(lm, ROWS, EDITS),
    lambda lm: generate(lm, "hi"),
  ],
)
@pytest.mark.parametrize("lm", [None, "gemma2-tiny"])
def test_something_else_than_a_model_is_named(go, lm):
  with pytest.raises(UserError, match=rf"{lm}.*load_lm"):
    go(lm)


def test_a_model_is_one_line():
  line = repr(load_lm("gemma2-tiny"))
  for part in ("gemma2-tiny", "6 layers", "128", "4096", "float32", "device"):
    assert part in line
  assert len(line) < 200
  assert "\n" not in line
