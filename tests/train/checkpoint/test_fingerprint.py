import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxsae.train.checkpoint.fingerprint import fingerprints

DTYPES = ["float32", "bfloat16", "int32", "int8", "uint16", "float16"]


def of(x) -> str:
  return fingerprints({"x": x})["['x']"]


def noise(dtype, shape=(5, 7, 3)):
  values = np.random.default_rng(0).normal(size=shape) * 100
  return np.array(jnp.asarray(values).astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_single_bit_changes_it(dtype):
  x = noise(dtype)
  before = of(x)
  rng = np.random.default_rng(1)
  for _ in range(40):
    bits = x.copy().view(np.uint8).reshape(-1)
    bits[rng.integers(bits.size)] ^= np.uint8(1 << rng.integers(8))
    assert of(bits.view(x.dtype).reshape(x.shape)) != before


def test_two_flipped_signs_do_not_cancel():
  x = noise("float32")
  flipped = x.copy()
  flipped[0, 0, 0] *= -1
  flipped[4, 2, 1] *= -1
  assert of(flipped) != of(x)


def test_the_order_of_values_matters():
  x = noise("float32")
  assert of(x[::-1].copy()) != of(x)


def test_zero_and_minus_zero_differ():
  assert of(np.float32([0.0])) != of(np.float32([-0.0]))


def test_nan_is_compared_bit_by_bit():
  assert of(np.float32([np.nan])) == of(np.float32([np.nan]))


def test_the_sharding_of_an_array_does_not_matter():
  devices = np.array(jax.devices()[:4]).reshape(2, 2)
  mesh = jax.sharding.Mesh(devices, ("data", "model"))
  x = noise("float32", (8, 6, 4))
  for spec in [(), ("data",), (None, "model"), (("model", "data"), None)]:
    layout = NamedSharding(mesh, PartitionSpec(*spec))
    assert of(jax.device_put(x, layout)) == of(x)


def test_every_array_has_its_own_name():
  @jax.tree_util.register_dataclass
  @dataclasses.dataclass
  class Pair:
    weights: jax.Array
    key: jax.Array

  pair = Pair(jnp.ones(3), jax.random.key(0))
  found = fingerprints((pair, jnp.array([True, False])))
  assert sorted(found) == ["[0].key", "[0].weights", "[1]"]
  other = fingerprints((Pair(pair.weights, jax.random.key(1)), jnp.ones(2)))
  assert other["[0].weights"] == found["[0].weights"]
  assert other["[0].key"] != found["[0].key"]
