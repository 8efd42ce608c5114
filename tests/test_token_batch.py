"""A batch of tokens is a pytree whose leaves keep their order."""

import jax
import numpy as np
import pytest

from jaxsae.token_batch import TokenBatch

TOKENS, SEGMENTS, POSITIONS, DOCUMENTS = np.arange(4 * 6).reshape(4, 2, 3)
BATCH = TokenBatch(tokens=TOKENS, segments=SEGMENTS, positions=POSITIONS)


@pytest.mark.parametrize(
  "batch, expected",
  [
    (BATCH, [POSITIONS, SEGMENTS, TOKENS]),
    (
      BATCH.replace(documents=DOCUMENTS),
      [DOCUMENTS, POSITIONS, SEGMENTS, TOKENS],
    ),
  ],
  ids=["without documents", "with documents"],
)
def test_compiled_programs_take_the_arrays_in_this_order(batch, expected):
  np.testing.assert_equal(jax.tree.leaves(batch), expected)


def test_packing_is_what_goes_into_the_model_beside_the_tokens():
  packing = BATCH.packing
  assert packing.keys() == {"segments", "positions"}
  assert packing["segments"] is BATCH.segments
  assert packing["positions"] is BATCH.positions
