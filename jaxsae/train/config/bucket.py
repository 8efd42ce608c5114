"""The bucket of one outer step, and how it is made to fit a mesh."""

import dataclasses
import math
from typing import Literal

from jaxsae import overrides
from jaxsae.errors import UserError
from jaxsae.mesh import divisors
from jaxsae.overrides import Count, SettingError

_ROWS = 32  # sequences in one LM forward pass, if the mesh does not need more
_SEQUENCES = 256  # in a bucket
_UPDATE_TOKENS = 4096  # Gemma Scope's (arXiv 2408.05147 §3.2)

SIZES = ("microbatches", "rows", "update_tokens")  # the settings that are sizes


@dataclasses.dataclass(frozen=True)
class BucketConfig:
  """One outer step: a bucket of rows is read, shuffled and trained on.

  A bucket is `microbatches × rows × context` tokens. What is None is chosen
  when a run is first started, so that it fits the mesh, and stays with the run.
  """

  # LM forward passes in a bucket. None: as many as read 256 sequences.
  microbatches: Count | None = None
  # Sequences in one LM forward pass; the mesh's `data` must divide them. None:
  # 32, or as many more as `data` needs.
  rows: Count | None = None
  # Tokens in one update of the autoencoders. None: 4096, or the nearest number
  # to which all rows give the same share.
  update_tokens: Count | None = None
  # Type in which activations wait to be trained on. None: the language model's
  # own.
  dtype: Literal["float32", "bfloat16"] | None = None

  def __post_init__(self):
    overrides.check(self)
    if self.update_tokens and self.rows and self.update_tokens % self.rows:
      raise SettingError(
        self,
        "{update_tokens} is not a multiple of {rows}; every row gives the same"
        f" share to an update, so use {{update_tokens:={self._multiple()}}}.",
      )

  @property
  def is_fitted(self) -> bool:
    """Whether every size is a number."""
    return all(getattr(self, name) is not None for name in SIZES)

  def fitted(self, shards: int, context: int) -> "BucketConfig":
    """Returns the bucket with numbers in place of None.

    Args:
      shards: the size of the mesh's `data` axis.
      context: tokens in a row.

    Raises:
      UserError: no number of rows suits both the mesh and `update_tokens`.
    """
    if self.rows is None and self.update_tokens and self.update_tokens % shards:
      raise UserError(self._no_rows(shards, context))
    rows = self.rows or _rows(shards, self.update_tokens)
    microbatches = self.microbatches or max(1, round(_SEQUENCES / rows))
    update = self.update_tokens or rows * _share(rows, microbatches * context)
    return dataclasses.replace(
      self, microbatches=microbatches, rows=rows, update_tokens=update
    )

  def _multiple(self) -> int:
    """Returns the multiple of the rows that is nearest to `update_tokens`."""
    assert self.rows and self.update_tokens
    return self.rows * max(1, round(self.update_tokens / self.rows))

  def _no_rows(self, shards: int, context: int) -> str:
    fits = dataclasses.replace(self, update_tokens=None).fitted(shards, context)
    return (
      f"--bucket.update_tokens={self.update_tokens} is not a multiple of"
      f" --mesh.data={shards}, so its devices cannot give the same share to an"
      f" update; use {fits.update_tokens}, or a larger --mesh.model."
    )


def _rows(shards: int, update_tokens: int | None) -> int:
  """Returns the rows that suit the shards and divide an update, if given.

  Args:
    shards: the size of the mesh's `data` axis.
    update_tokens: the tokens of an update, a multiple of `shards`.
  """
  enough = shards * -(-_ROWS // shards)
  if not update_tokens or update_tokens % enough == 0:
    return enough
  dividing = [shards * n for n in divisors(update_tokens // shards)]
  return min(dividing, key=lambda rows: abs(math.log(rows / _ROWS)))


def _share(rows: int, lane: int) -> int:
  """Returns the tokens that each row gives to an update: a power of two.

  Args:
    rows: the rows of a bucket.
    lane: the tokens of each row, which the share divides.
  """
  powers = [2**i for i in range(lane.bit_length()) if lane % 2**i == 0]
  return min(powers, key=lambda n: abs(math.log(n * rows / _UPDATE_TOKENS)))
