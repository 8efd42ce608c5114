"""An update of a stack of ours: loss, gradients, optimiser, idle latents.

S autoencoders, N tokens, D site width, F latents.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae import mesh as meshes
from jaxsae.lm import Site
from jaxsae.mesh import MeshConfig
from jaxsae.sae import JumpRelu, Sae
from jaxsae.sae import stack as stacks
from jaxsae.train import arrays, optim
from jaxsae.train.config.run import SweepConfig, TrainConfig
from jaxsae.train.group import place_stacks
from jaxsae.train.state import StackState, TrainState

L0 = 64  # of the trained state


def inputs(n: int, d: int) -> np.ndarray:
  """Draws noise of unit mean squared norm, [N, D]."""
  x = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
  return x / np.sqrt(d)


def start(x: np.ndarray, width: int, trained: bool, size: int = 1) -> Sae:
  """Makes a stack of `size`; if `trained`, about L0 latents are active."""
  sae = stacks.init(JumpRelu(), range(size), x.shape[1], x.shape[1], width)
  if not trained:
    return sae
  pre = x[:64] @ np.asarray(sae.w_enc[0])
  threshold = np.quantile(pre, 1 - L0 / width)
  return sae.replace(threshold=jnp.full_like(sae.threshold, threshold))


def turn(sae: Sae, x: np.ndarray) -> Callable[[], None]:
  """Returns a function that does one update and waits for it."""
  size, width = sae.threshold.shape
  sweep = SweepConfig(
    sites=(Site("resid", 0),), widths=(width,), seeds=tuple(range(size))
  )
  config = TrainConfig(sae=sweep, mesh=MeshConfig(1, 1)).fitted(1)
  mesh = meshes.make(config.mesh)
  stack = StackState(
    sae=jax.tree.map(jnp.copy, sae),
    moments=optim.transformation(sweep.optim).init(sae),
    tokens_since_fired=jnp.zeros((size, width), jnp.int32),
    scale=jnp.ones(size),
    target_scale=jnp.ones(size),
  )
  state = TrainState(jnp.zeros((), jnp.int32), jax.random.key(0), (stack,))
  x = jnp.asarray(x)
  groups = place_stacks(
    config.stacks, config.schedule, mesh, state.stacks, x.dtype
  )

  def one():
    nonlocal state
    state = arrays.update(groups, state, x)
    jax.block_until_ready(state)

  return one
