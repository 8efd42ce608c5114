"""Devices whose replicas differ are named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae import mesh as meshes
from jaxsae.errors import RunError, UserError
from jaxsae.mesh import MeshConfig
from jaxsae.runs import open_run
from jaxsae.train import loop
from jaxsae.train.checkpoint import replicas
from jaxsae.train.checkpoint.fingerprint import fingerprints
from jaxsae.train.loop import train
from tests.train.toys import start

MESH = meshes.make(MeshConfig(4, 2))


def spoiled(x, device, flip=1):
  """Returns the array with its first bits flipped on one device."""
  parts = [shard.data for shard in x.addressable_shards]
  for i, shard in enumerate(x.addressable_shards):
    if shard.device.id == device:
      parts[i] = jax.device_put(flipped(np.array(parts[i]), flip), shard.device)
  return jax.make_array_from_single_device_arrays(x.shape, x.sharding, parts)


def flipped(x, bits):
  raw = np.atleast_1d(x).view(np.uint8).copy()
  raw.reshape(-1)[0] ^= bits
  return raw.view(x.dtype).reshape(x.shape)


def placed(x, *spec):
  return jax.device_put(x, meshes.shard(MESH, *spec))


def found(tree):
  return [
    (name, [d.id for d in odd], [d.id for d in others])
    for name, odd, others in replicas.differences(MESH, tree)
  ]


def ids(*places):
  return [MESH.devices[place].id for place in places]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
def test_one_bit_of_one_replica_is_found(dtype):
  x = placed(jnp.arange(24).reshape(4, 6).astype(dtype))
  assert found({"x": x, "y": x}) == []
  (odd,) = ids((2, 1))
  ((name, devices, others),) = found({"x": spoiled(x, odd), "y": x})
  assert name == "x" and devices == [odd]
  assert sorted([odd, *others]) == [d.id for d in jax.devices()]


def test_only_replicas_of_the_same_part_are_compared():
  x = placed(jnp.arange(32.0).reshape(8, 4), "data", None)
  assert found(x) == []
  first, second = ids((3, 0), (3, 1))
  ((_, devices, others),) = found([spoiled(x, second)])
  assert (devices, others) == ([second], [first])


def test_a_part_on_one_device_has_no_replica_to_compare():
  x = placed(jnp.arange(64.0).reshape(8, 8), "data", "model")
  assert found([spoiled(x, 3)]) == []


def test_keys_are_compared_too():
  key = placed(jax.random.key(3))
  assert found({"key": key}) == []
  other = jax.random.key(4)
  parts = [
    jax.device_put(other if i == 5 else jax.random.key(3), device)
    for i, device in enumerate(MESH.devices.flat)
  ]
  odd = jax.make_array_from_single_device_arrays((), key.sharding, parts)
  ((name, devices, _),) = found({"key": odd})
  assert name == "key" and devices == [MESH.devices.flat[5].id]


def test_the_fingerprint_of_an_array_is_that_of_one_copy():
  """A fingerprint reads one copy; the comparison reads all."""
  x = placed(jnp.zeros(8))
  assert fingerprints([spoiled(x, 7)]) == fingerprints([x])
  assert found([spoiled(x, 7)]) != []


def test_a_sentence_names_few():
  devices = list(jax.devices())
  differing = [(f"w{i}", devices[:1], devices[1:]) for i in range(5)]
  says = replicas._sentence(40, differing)
  assert says.startswith("step 40: devices ")
  assert "w0 on device 0 (process 0) differs from device 1 (process 0), " in (
    says
  )
  assert "w2 on" in says and "w3" not in says and "; and 2 more" in says


def test_replicas_are_compared_at_the_steps_asked_for(config, replace):
  with pytest.raises(UserError, match="check_replicas_every=0"):
    replace(config, check_replicas_every=0)


def test_a_run_is_stopped_before_it_saves(config, replace, monkeypatch):
  run = replace(config, mesh=MeshConfig(4, 2), check_replicas_every=2)
  compile_step = loop.compile_step

  def faulty(*args):
    step = compile_step(*args)

    def stepping(state, lm, batch):
      state, metrics = step(state, lm, batch)
      if int(state.step) != 3:
        return state, metrics
      first = state.stacks[0]
      sae = first.sae.replace(b_dec=spoiled(first.sae.b_dec, 6))
      stacks = (first.replace(sae=sae), *state.stacks[1:])
      return state.replace(stacks=stacks), metrics

    return stepping

  with monkeypatch.context() as patch:
    patch.setattr(loop, "compile_step", faulty)
    with pytest.raises(RunError, match=r"step 4: .*stacks\.0\.sae\.b_dec on"):
      train(run)
  assert open_run(run.workdir).step == 2
  assert int(train(run).step) == 6


def test_weights_of_the_language_model_are_compared(config, replace):
  config = replace(config, mesh=MeshConfig(4, 2), check_replicas_every=3)
  mesh, lm, _, state = start(config)
  replicas.check(config, mesh, 3, state, lm)
  norm = lm.params["final_norm"]["scale"]
  assert norm.sharding.is_fully_replicated
  odd = lm.params | {"final_norm": {"scale": spoiled(norm, 5)}}
  broken = lm.replace(params=odd)
  replicas.check(config, mesh, 2, state, broken)  # it is not asked for here
  with pytest.raises(RunError, match=r"lm\.params\.final_norm\.scale on dev"):
    replicas.check(config, mesh, 3, state, broken)
