"""One update of a wide autoencoder: dense, and sparse from active latents only.

  pip install jaxsae
  python -m experiments.benchmarks.sparse_step

Loss, gradients and optimiser at N = 1024, D = 256 in float32 on this machine's
CPU, in a state where about L0 latents are active. The sparse update works on
pairs of a token and a latent active on it, up to a budget per token, and falls
back to the dense one where there are more. Figures are microseconds per token,
medians over turns; *CPU* is the time of all cores together, which other work on
the machine disturbs less. *Encoder* is the share of the sparse update's CPU
time that its one dense product takes; only the rest could still be saved. The
last seven rows look for the crossover, which is at one active latent in 32 to
40. With slightly more pairs than the budget an update takes a quarter longer
than the dense one, because the search for pairs was in vain. Training on one
CPU uses the sparse update from width 16,384 on.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import turns
from jaxsae.sae import JumpRelu, UpdateInputs, UpdateTokens, sparse
from jaxsae.sae import stack as stacks
from jaxsae.train import optim
from jaxsae.train.config.run import OptimConfig

TURNS = 5
N, D = 1024, 256
WIDE = [(f, l0) for f in (16_384, 65_536, 262_144) for l0 in (32, 128)]
CROSSOVER = [(4096, 32), (4096, 128), (16_384, 256), (16_384, 512)]
CROSSOVER += [(16_384, 1024), (65_536, 1024), (65_536, 2048)]

OPTIM = OptimConfig()
ARCHITECTURE = JumpRelu()


def main():
  print(*TABLE, sep="\n")
  for width, l0 in WIDE + CROSSOVER:
    print(table_line(width, l0), flush=True)


TABLE = [
  "| F | L0 | dense | sparse | ratio | dense CPU | sparse CPU | ratio"
  " | encoder |",
  "|---|---|---|---|---|---|---|---|---|",
]


def table_line(width, l0):
  """Returns the table's line for one width and L0."""
  x = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
  x = jnp.asarray(x / np.sqrt(D))
  budget = max(sparse.budget(width), 2 * l0)
  functions = (
    updates(all_latents, x, width, l0),
    updates(pairs(budget), x, width, l0),
    product(x, width),
  )
  times = np.array(turns.take(functions, TURNS, wall_and_cpu))
  wall, cpu = 1e6 / N * np.median(times, axis=1).T
  return (
    f"| {width} | {l0} | {wall[0]:.0f} | {wall[1]:.0f}"
    f" | {wall[0] / wall[1]:.1f} | {cpu[0]:.0f} | {cpu[1]:.0f}"
    f" | {cpu[0] / cpu[1]:.1f} | {cpu[2] / cpu[1]:.0%} |"
  )


def all_latents(stack, rows, inputs):
  """Computes the gradients of a stack from all latents."""
  one = lambda sae, inputs: ARCHITECTURE.gradients(sae, rows, inputs)
  return jax.vmap(one)(stack, inputs)


def pairs(budget):
  """Returns a function that computes gradients from at most `budget` pairs."""

  def of_stack(stack, rows, inputs):
    one = lambda each: sparse.gradients(
      ARCHITECTURE, each[0], rows, each[1], budget
    )
    return jax.lax.map(one, (stack, inputs))

  return of_stack


def updates(gradients, x, width, l0):
  """Returns a function that does one update and waits for it."""
  state = start(x, width, l0)

  def update(stack, moments):
    vector = jnp.full(1, 1e-3)
    inputs = UpdateInputs(vector, vector, jnp.zeros((1, width), bool))
    grads, _ = gradients(stack, UpdateTokens(x, x, jnp.ones(N)), inputs)
    rates = jnp.full(1, 1e-6)
    return optim.apply(OPTIM, ARCHITECTURE, stack, grads, moments, rates, ())

  update = jax.jit(update, donate_argnums=(0, 1))

  def turn():
    nonlocal state
    state = jax.block_until_ready(update(*state))

  return turn


def start(x, width, l0):
  """Makes a stack of one, with about L0 active latents, and Adam's moments."""
  stack = stacks.init(ARCHITECTURE, [0], D, D, width)
  pre = np.asarray(x[:64]) @ np.asarray(stack.w_enc[0])
  threshold = np.quantile(pre, 1 - l0 / width)
  stack = stack.replace(threshold=jnp.full_like(stack.threshold, threshold))
  return stack, optim.transformation(OPTIM).init(stack)


def product(x, width):
  """Returns the encoder's product as a function, in chunks that fit a cache."""
  size = sparse.chunk_size(width)

  def encode(x, w_enc):
    def largest(index):
      at = index * size
      return jnp.max(x @ jax.lax.dynamic_slice(w_enc, (0, at), (D, size)))

    return jax.lax.map(largest, jnp.arange(width // size))

  encode, w_enc = jax.jit(encode), jnp.ones((D, width))
  return lambda: encode(x, w_enc).block_until_ready()


def wall_and_cpu() -> np.ndarray:
  return np.array([time.perf_counter(), time.process_time()])


if __name__ == "__main__":
  main()
