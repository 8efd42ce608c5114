"""The arguments of a step as shapes and shardings, without any arrays."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxsae import mesh as meshes
from jaxsae.lm import GemmaConfig, Lm, init_params, sharding
from jaxsae.train import state as states
from jaxsae.train.config import TrainConfig
from jaxsae.train.state import TrainState


def arguments(
  config: TrainConfig, gemma: GemmaConfig, mesh: Mesh, dtype=jnp.bfloat16
) -> tuple[TrainState, Lm, dict[str, jax.Array]]:
  """What `compile_step` takes: state, language model and batch.

  Args:
    config: the run's.
    gemma: the language model's sizes.
    mesh: of devices that need not exist here.
    dtype: of the language model's weights.
  """
  return (
    abstract_state(config, gemma, mesh),
    _lm(config, gemma, mesh, dtype),
    _batch(config, mesh),
  )


def abstract_state(
  config: TrainConfig, gemma: GemmaConfig, mesh: Mesh
) -> TrainState:
  """Shapes and shardings of the state."""
  scales = [(1.0, 1.0) for _ in config.stacks]
  shapes = jax.eval_shape(lambda: states.init(config, gemma, scales))
  return jax.tree.map(_shaped, shapes, states.sharding(shapes, mesh))


def _lm(config, gemma, mesh, dtype) -> Lm:
  place = sharding.placement(gemma, mesh, config.fsdp)

  def lay(path, x):
    layout = place(tuple(key.key for key in path))
    return jax.ShapeDtypeStruct(x.shape, dtype, sharding=layout)

  return Lm(jax.tree.map_with_path(lay, _shapes(gemma)), gemma, mesh=mesh)


@functools.cache  # it takes a second, and plans ask for it often
def _shapes(gemma: GemmaConfig):
  return jax.eval_shape(lambda: init_params(gemma, jax.random.key(0)))


def _batch(config, mesh):
  shape = (config.bucket.microbatches, config.bucket.rows, config.data.context)
  layout = meshes.shard(mesh, None, "data", None)
  ids = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=layout)
  return {name: ids for name in ("tokens", "segments", "positions")}


def _shaped(x, layout):
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout)
