"""The automatic evaluation of a run: its memory, and its work.

Sizes: T time, D width of a site, F latents, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxsae import mesh as meshes
from jaxsae.chips import Chip
from jaxsae.evals import CONTROLS, count_passes
from jaxsae.evals.fidelity import stream_loss
from jaxsae.evals.passes import shared_shapes, spliced_stream
from jaxsae.evals.sparsity import capture_step, sites_read, sum_step
from jaxsae.evals.steps import ChunkedSae, rows_of_step
from jaxsae.lm import GemmaConfig, Lm, Site, Splice, Taps
from jaxsae.lm.moving import MovingSplice
from jaxsae.plan import lm_work
from jaxsae.plan.compilation import Compilation, Compile, compile_program
from jaxsae.plan.roofline import Part
from jaxsae.sae import Sae
from jaxsae.sae import stack as sae_stacks
from jaxsae.token_batch import TokenBatch
from jaxsae.train.config.bucket import BucketConfig
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.placement.layout import resting_axes
from jaxsae.train.state import TrainState, fold_member

# An autoencoder's products are in float32, which a TPU makes of six in
# bfloat16; of each number of float32 it moves four bytes.
_PRODUCTS, _FLOAT32, _BFLOAT16 = 6, 4, 2
_LOGIT_TOUCHES = 3  # a logit is written, and read for its maximum and its sum


@dataclasses.dataclass(frozen=True)
class EvaluationMemory:
  """The memory that an evaluation needs, by the compiler.

  Attributes:
    needed: bytes of one device; None if the compiler does not say.
    seconds: seconds that compiling took.
    compiled: whether every program compiled.
  """

  needed: int | None
  seconds: float
  compiled: bool


def compile_evaluation(
  config: TrainConfig, mesh: Mesh, state: TrainState, lm: Lm
) -> EvaluationMemory:
  """Compiles the programs of an evaluation that need most, from shapes alone.

  These are the one that reads all sites, and those that measure the largest
  autoencoder; the language model's weights and all autoencoders stay in memory
  meanwhile.

  Args:
    config: the run's config.
    mesh: the mesh of devices.
    state: the shapes of the run's state.
    lm: the shapes of the language model.
  """
  saes = dict(_folded(config, mesh, state))
  held = meshes.on_device(lm.params) + sum(
    meshes.on_device(sae) for _, sae in saes.values()
  )
  found = [
    (kept, compile_program(compile_it))
    for kept, compile_it in _programs(config, lm, saes)
  ]
  needed = [_needed(held + kept, one) for kept, one in found]
  known = [size for size in needed if size is not None]
  return EvaluationMemory(
    needed=max(known) if len(known) == len(needed) else None,
    seconds=sum(one.seconds for _, one in found),
    compiled=all(one.text is not None for _, one in found),
  )


def _needed(held: int, program: Compilation) -> int | None:
  """Returns the bytes of a device while a program runs.

  Args:
    held: bytes that stay in memory, the program's arguments among them.
    program: the compiled program.
  """
  if program.peak is None:
    return None
  if program.arguments is None:  # it does not fit by itself
    return max(held, program.peak)
  return held + program.peak - program.arguments


def _programs(
  config: TrainConfig, lm: Lm, saes: Mapping[str, tuple[Taps, Sae]]
) -> Iterator[tuple[int, Compile]]:
  """Yields bytes that are kept only for a program, and what compiles it."""
  assert lm.mesh is not None
  taps = tuple(sorted({taps for taps, _ in saes.values()}))
  sites, abstract = sites_read(taps), _Abstract(lm.mesh)
  name = max(saes, key=lambda name: meshes.on_device(saes[name][1]))
  at, sae = saes[name]
  chunked = ChunkedSae(sae, lm.mesh)

  step = abstract.step(config, lm, sites)
  seen = {site: abstract.seen(step, lm, site) for site in sites}
  yield 0, lambda: capture_step.lower(lm, taps, step).compile()
  read, written = ([seen[s] for s in some] for some in (at.reads, at.writes))
  mask = abstract.like(step.tokens.shape, jnp.bool_)
  summing = lambda: sum_step.lower(chunked, read, written, mask).compile()
  yield meshes.on_device(seen), summing

  edit = MovingSplice.at(at, Splice(chunked), shared_shapes(saes)[name])
  step = abstract.step(config, lm)
  yield 0, lambda: spliced_stream.lower(lm, edit, step).compile()
  stream = abstract.seen(step, lm, Site("resid", 0))
  yield 0, lambda: stream_loss.lower(lm, stream, stream, step).compile()


@dataclasses.dataclass(frozen=True)
class _Abstract:
  """Makes shapes of arrays whose rows are split over the mesh's `data`."""

  mesh: Mesh

  def like(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    rest = [None] * (len(shape) - 1)
    layout = meshes.shard(self.mesh, "data", *rest)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=layout)

  def step(
    self, config: TrainConfig, lm: Lm, sites: list[Site] | tuple[()] = ()
  ) -> TokenBatch[jax.ShapeDtypeStruct]:
    context = config.data.context
    rows = rows_of_step(lm, config.eval.batch, context, sites)
    ids = self.like((rows, context), jnp.int32)
    return TokenBatch(positions=ids, segments=ids, tokens=ids)

  def seen(self, step, lm: Lm, site: Site) -> jax.ShapeDtypeStruct:
    dtype = lm.params["embedder"]["input_embedding"].dtype
    return self.like((*step.tokens.shape, site.width(lm.config)), dtype)


def _folded(
  config: TrainConfig, mesh: Mesh, state: TrainState
) -> Iterator[tuple[str, tuple[Taps, Sae]]]:
  """Yields the shapes of every autoencoder of raw activations, by its name."""
  for stack, trained in zip(config.stacks, state.stacks, strict=True):
    sae = jax.eval_shape(
      lambda s, stack=stack: fold_member(
        stack, 0, sae_stacks.member(s.sae, 0), s.scale[0], s.target_scale[0]
      ),
      trained,
    )
    sae = _at_rest(sae, mesh)
    yield from ((name, (stack.taps, sae)) for name in stack.names)


def _at_rest(sae: Sae, mesh: Mesh) -> Sae:
  """Returns the shapes of an autoencoder, sharded as it is read."""
  over = resting_axes(sae.width, mesh) or None
  specs = {"w_enc": (None, over), "w_dec": (over,)}
  specs |= dict.fromkeys(("b_enc", "threshold"), (over,))

  def shaped(path, x):
    layout = meshes.shard(mesh, *specs.get(path[-1].name, ()))
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout)

  return jax.tree_util.tree_map_with_path(shaped, sae)


def work(config: TrainConfig, lm: Lm, mesh: Mesh, chip: Chip) -> Part:
  """Returns the work of the whole evaluation on one device.

  Counts one forward pass for L0 and FVU of all autoencoders, one for every
  pass for losses, and each autoencoder's products in both; and the same for
  its controls, as if each were as wide. What fits controls is left out.
  """
  settings = config.eval
  losses = min(settings.batches, settings.loss_batches)
  controls = min(settings.batches, settings.control_batches)
  parts = [
    *_measuring(config, lm, mesh, settings.batches, losses, times=1),
    *_measuring(
      config, lm, mesh, controls, min(controls, losses), times=len(CONTROLS)
    ),
  ]
  sums = [
    sum(times * getattr(one, name) for times, one in parts)
    for name in ("flops", "traffic", "sent")
  ]
  flops, traffic, sent = sums
  return Part(
    name="evaluation",
    compute=flops / chip.flops,
    memory=traffic / chip.hbm_bandwidth,
    communication=sent / chip.link_bandwidth,
    flops=flops,
    traffic=traffic,
    sent=sent,
  )


def _measuring(
  config: TrainConfig,
  lm: Lm,
  mesh: Mesh,
  batches: int,
  loss_batches: int,
  times: int,
) -> Iterator[tuple[int, lm_work.LmWork]]:
  """Yields how often there is some work where autoencoders are measured.

  Args:
    config: the run's config.
    lm: the language model.
    mesh: the mesh of devices.
    batches: the batches that are read.
    loss_batches: those of them on which losses are measured.
    times: how many autoencoders there are for each of the run's.
  """
  gemma = lm.config
  reading = _bucket(config, lm, batches, config.sites)
  passing = _bucket(config, lm, loss_batches)
  last = [Site("resid", gemma.num_layers - 1)]
  every = [stack.taps for stack in config.stacks for _ in stack.members] * times
  again = sum(not taps.is_causal for taps in every)
  yield 1, lm_work.work(reading, gemma, mesh)
  yield count_passes(every) + again, lm_work.work(passing, gemma, mesh, last)
  # Those of the clean stream are made again for each divergence.
  yield 2 * count_passes(every), _unembedding(passing, gemma, mesh)
  for stack in config.stacks:
    for some in (reading, passing):
      work = _reconstructing(some, gemma, mesh, stack)
      yield times * len(stack.members), work


def _bucket(config: TrainConfig, lm: Lm, batches: int, sites=()) -> TrainConfig:
  """Returns a config whose bucket is some held-out batches, cut into steps."""
  batch = config.eval.batch
  rows = rows_of_step(lm, batch, config.data.context, sites)
  steps = math.ceil(batches * batch / rows)
  bucket = BucketConfig(microbatches=steps, rows=rows, update_tokens=rows)
  return dataclasses.replace(config, bucket=bucket)


def _unembedding(
  config: TrainConfig, gemma: GemmaConfig, mesh: Mesh
) -> lm_work.LmWork:
  """Returns the work of making logits and reducing them."""
  data, model = mesh.shape["data"], mesh.shape["model"]
  d, v = gemma.embed_dim, gemma.vocab_size / model
  tokens, table = config.bucket_tokens / data, _BFLOAT16 * d * v
  chunks = math.ceil(tokens / 256)  # see `lm/loss.py`
  gathered = config.microbatches * table * (1 - 1 / data) * config.fsdp
  return lm_work.LmWork(
    flops=2 * tokens * d * v,
    traffic=chunks * table + _LOGIT_TOUCHES * _FLOAT32 * tokens * v,
    sent=gathered,
  )


def _reconstructing(
  config: TrainConfig, gemma: GemmaConfig, mesh: Mesh, stack: Any
) -> lm_work.LmWork:
  """Returns the work of one autoencoder on all tokens of a bucket."""
  data, model = mesh.shape["data"], mesh.shape["model"]
  d_in, d, f = stack.taps.d_in(gemma), stack.taps.d(gemma), stack.width / model
  tokens, weights = config.bucket_tokens / data, (d_in + d) * f
  gathered = config.microbatches * _FLOAT32 * weights
  summed = 2 * (1 - 1 / model) * _FLOAT32 * tokens * d
  return lm_work.LmWork(
    flops=_PRODUCTS * 2 * tokens * weights,
    traffic=gathered + _FLOAT32 * tokens * (2 * f + d_in + d),
    sent=(1 - 1 / data) * gathered + summed,
  )
