"""A bucket fits every mesh, and stays what it was."""

import pytest

from jaxsae.errors import UserError
from jaxsae.plan import topology
from jaxsae.train.config.bucket import BucketConfig
from jaxsae.train.config.run import TrainConfig

DATA = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 512, 768, 1024, 6144, 18432)


@pytest.mark.parametrize("shards", DATA)
@pytest.mark.parametrize("context", [256, 1024, 1000])
def test_the_default_fits_every_data_axis(shards, context):
  made = BucketConfig().fitted(shards, context)
  assert made.rows % shards == 0 and made.update_tokens % made.rows == 0
  per_row = made.microbatches * context
  assert per_row % (made.update_tokens // made.rows) == 0


@pytest.mark.parametrize("name", ["v5e:16x16", "v5p:8x8x8", "v4:4x4x12"])
def test_the_default_fits_slices(name):
  slices = topology.parse(name)
  made = TrainConfig().fitted(slices.devices)
  assert made.rows % slices.devices == 0


@pytest.mark.parametrize("shards", [1, 4, 32])
def test_up_to_32_shards_it_is_the_published_one(shards):
  made = BucketConfig().fitted(shards, context=1024)
  assert (made.microbatches, made.rows) == (8, 32)
  assert made.update_tokens == 4096


def test_what_is_given_stays():
  given = BucketConfig(microbatches=3, rows=6, update_tokens=12)
  assert given.fitted(2, context=16) == given
  assert BucketConfig(update_tokens=1536).fitted(64, 1024).rows == 64
  assert BucketConfig(update_tokens=1536).fitted(96, 1024).rows == 96


def test_an_update_that_shards_cannot_share_is_refused():
  with pytest.raises(UserError) as refused:
    BucketConfig(update_tokens=4096).fitted(96, context=1024)
  for part in ("update_tokens=4096", "--mesh.data=96", "use 3072"):
    assert part in str(refused.value)
  TrainConfig(bucket=BucketConfig(update_tokens=3072)).fitted(96)  # it works


def test_sizes_are_not_known_before():
  with pytest.raises(ValueError, match="not fitted"):
    _ = TrainConfig().steps
