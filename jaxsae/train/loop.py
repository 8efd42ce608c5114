"""The loop: reads buckets, calls the step, saves and logs.

While the devices are busy with a step, the next bucket is read and put on them
(`sources/`), and the step before is looked at and logged. So one step is
under way, at most one more waits for it, and at most one bucket is read ahead,
however seldom a line is logged.

What the devices wait for, once each:
  - a checkpoint: the step must be over and found finite, then the state is
    copied off the devices, for the next step takes its memory. Writing it is
    left to Orbax's threads; only if the one before is still being written does
    the loop wait for that too;
  - text, if it is read more slowly than it is trained on.
`idle` in metrics.jsonl is the share of time in which they waited
(`monitor/idle.py`).
Evaluation is not part of this: it comes after training, in the same process.
"""

import contextlib
import dataclasses
import sys

import jax
from etils import epath
from jax.sharding import Mesh

from jaxsae import data, pod
from jaxsae import mesh as meshes
from jaxsae.data import Corpus, Tokenizer
from jaxsae.errors import UserError
from jaxsae.files import given_path
from jaxsae.lm import GemmaConfig, Lm, LmConfig, load_lm
from jaxsae.lm.weights import abstract_lm, default_dtype, read_sizes
from jaxsae.train import memory, outliers
from jaxsae.train import state as states
from jaxsae.train.checkpoint import lm_check, replicas, start_from
from jaxsae.train.checkpoint.checkpoints import Checkpoints
from jaxsae.train.checkpoint.timing import CheckpointTiming
from jaxsae.train.config.notes import notes
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.group import Group, make_groups
from jaxsae.train.monitor.monitor import RunMonitor
from jaxsae.train.monitor.nonfinite import check_scales
from jaxsae.train.placement.layout import check_rows, sharding
from jaxsae.train.placement.select import (
  PlacementChoice,
  bucket_dtype,
  choose_placements,
  log_lines,
  resident_bytes,
)
from jaxsae.train.process import agreement, corpus_check, workdir
from jaxsae.train.process import lease as leases
from jaxsae.train.process.compile_cache import CompileCache
from jaxsae.train.process.shutdown import ShutdownSignal, resume_command
from jaxsae.train.sources import Source, TextSource
from jaxsae.train.sources.text import open_batches
from jaxsae.train.state import TrainState, abstract_state
from jaxsae.train.step import compile_step, estimate_scales


def train(config: TrainConfig) -> TrainState:
  """Trains, or goes on with, the run in `config.workdir`.

  Ctrl-C ends the step at hand, leaves a checkpoint, prints how to go on and
  exits with status 130; SIGTERM does the same, with status 42. A second one
  ends only what is being written. See `process/shutdown.py`.

  Raises:
    UserError: something about the run is impossible.
    RunError: a number was not finite, and `config.not_finite` is "stop"; or
      devices that should hold the same do not.
  """
  cache = CompileCache(config.workdir)
  agreement.check(agreement.of_program(config))
  setting = _prepare(config)
  config, path = setting.config, given_path(config.workdir)
  with contextlib.ExitStack() as ending:
    ending.callback(setting.source.close)
    lease = ending.enter_context(leases.hold(path))
    _claim(setting, path)
    checkpoints = Checkpoints(
      path / "checkpoints", config.keep_checkpoints, config.keep_every
    )
    ending.callback(checkpoints.close)  # when what is being written is whole
    ending.enter_context(cache)
    lm_check.check(path, setting.source.weights)
    state = _start(setting, checkpoints)
    pod.on_leader(lambda: workdir.update(config))
    _announce(setting, int(state.step))
    monitor = ending.enter_context(
      RunMonitor(
        config,
        path,
        int(state.step),
        setting.corpus.counts,
        setting.source,
        lease.check,
      )
    )
    monitor.time_first_step(cache.start)
    stop = ending.enter_context(ShutdownSignal())
    state = _run(setting, state, checkpoints, monitor, stop)
  if stop.status is not None and int(state.step) < config.steps:
    _exit(int(state.step), stop)
  return state


@dataclasses.dataclass(frozen=True)
class _Setting:
  """Everything that a run needs besides its state and its folder.

  Attributes:
    config: the run's configuration.
    mesh: the mesh of devices.
    lm_config: the language model's sizes.
    abstract: the shapes and shardings of the state.
    groups: the stacks, grouped and placed.
    placement_lines: the log's lines about placements.
    corpus: the run's text.
    source: where activations come from; to be closed.
  """

  config: TrainConfig
  mesh: Mesh
  lm_config: LmConfig
  abstract: TrainState
  groups: tuple[Group, ...]
  placement_lines: tuple[str, ...]
  corpus: Corpus
  source: Source


def _prepare(config: TrainConfig) -> _Setting:
  """Prepares a run; checks that are quick come first."""
  _check_jax()
  mesh = meshes.make(config.mesh)
  config = workdir.with_saved_bucket(config).fitted(mesh.shape["data"])
  check_rows(config, mesh)
  pod.on_all(lambda: start_from.check(config))
  pod.on_all(lambda: data.check_source(config.data.source))  # which is quick
  sizes = pod.on_all(lambda: read_sizes(config.lm))
  abstract, choices = pod.on_all(lambda: _sized(config, mesh, sizes))
  lm = pod.on_all(lambda: _load_lm(config, mesh))
  groups = make_groups(config.stacks, config.schedule, mesh, choices)
  lines = tuple(log_lines(config, mesh, choices, lm))
  pod.print_on_leader(f"reading {config.data.source} …")
  corpus = pod.on_all(lambda: open_corpus(config, lm))
  agreement.check({"the text of --data.source": corpus.fingerprint})
  corpus_check.check_passes(config, corpus)
  pod.print_on_leader(
    corpus_check.summary(corpus),
    *corpus_check.notes(corpus),
    *notes(config),
  )
  batches = open_batches(config, mesh, corpus.train)
  source = TextSource(config, mesh, lm, batches, corpus.documents)
  return _Setting(
    config, mesh, lm.config, abstract, groups, lines, corpus, source
  )


def _check_jax() -> None:
  """Raises UserError if JAX would compute in other types than we state."""
  if jax.config.read("jax_enable_x64"):
    raise UserError(
      "JAX_ENABLE_X64 is set, and training is in float32 and bfloat16; unset it"
      " (export JAX_ENABLE_X64=0)."
    )


def _sized(
  config: TrainConfig, mesh: Mesh, sizes: GemmaConfig
) -> tuple[TrainState, list[PlacementChoice]]:
  """Returns the shapes of the state, and its placement, if all of it fits.

  Nothing is made yet.

  Raises:
    UserError: sites or rows do not suit the language model, or there is too
      little memory.
  """
  lm = abstract_lm(sizes, mesh, config.fsdp, default_dtype())
  lm.check_length(config.data.context)
  for stack in config.stacks:
    stack.taps.check(sizes)
  state = abstract_state(config, sizes, mesh)
  choices = choose_placements(
    config.stacks,
    config.schedule,
    mesh,
    state.stacks,
    bucket_dtype(config, lm),
    resident_bytes(config, mesh, lm),
  )
  memory.check(config, mesh, state, lm, choices)
  return state, choices


def _load_lm(config: TrainConfig, mesh: Mesh) -> Lm:
  lm = load_lm(config.lm, mesh=mesh, fsdp=config.fsdp)
  return lm.excluding(config.data.exclude_tokens)


def open_corpus(config: TrainConfig, lm: Lm) -> Corpus:
  """The run's text."""
  return data.open_corpus(config.data, tokenizer_of(config, lm))


def tokenizer_of(config: TrainConfig, lm: Lm) -> Tokenizer:
  """Returns the tokenizer that a run's text needs."""
  if lm.tokenizer is None:
    raise UserError(
      f"{config.lm} has no tokenizer.model, so it cannot read text; put its"
      " tokenizer beside its weights."
    )
  return lm.tokenizer


def _claim(setting: _Setting, path: epath.Path) -> None:
  """Makes sure that the folder is this run's, and that all processes see it."""
  config, corpus = setting.config, setting.corpus
  pod.on_leader(lambda: str(workdir.claim(config, corpus.policy)))
  pod.on_leader(lambda: corpus_check.check(path, corpus))
  if not pod.true_on_all(workdir.is_claimed(path)):
    raise UserError(
      f"not every host sees {path}; give --workdir=DIR one on storage that all"
      " hosts of the pod share, such as gs://."
    )


def _announce(setting: _Setting, step: int) -> None:
  config, devices = setting.config, setting.mesh.devices
  count = sum(len(stack.names) for stack in config.stacks)
  pod.print_on_leader(
    f"{count} autoencoders at"
    f" {', '.join(map(str, config.sites))}, from one forward pass of"
    f" {config.lm}, on {devices.size} device(s) as"
    f" {'x'.join(map(str, devices.shape))}",
    f"{config.tokens:,} tokens from a text of"
    f" {setting.corpus.train.tokens:,}"
    f" ({config.tokens / setting.corpus.train.tokens:.2g} passes), in"
    f" {config.steps} buckets of {config.bucket_tokens:,}; starts after bucket"
    f" {step}",
    *setting.placement_lines,
    "compiling the step …",
  )


def _start(setting: _Setting, checkpoints: Checkpoints) -> TrainState:
  """The newest checkpoint, or the beginning."""
  config, mesh = setting.config, setting.mesh
  if checkpoints.latest is not None:
    state, position = checkpoints.restore(setting.abstract)
    setting.source.go_to(position)
    return state
  state, norms = _begin(config, mesh, setting.source, setting.abstract)
  pod.print_on_leader(str(norms))
  check_scales(config, state)
  if config.start_from is not None:
    state = start_from.take(config, mesh, setting.source.weights, state)
  checkpoints.prepare(state)
  return state


def begin(
  config: TrainConfig, mesh: Mesh, source: Source, abstract: TrainState
) -> TrainState:
  """Makes the state of a run, with the scales of the source's next bucket.

  Args:
    config: the run's configuration.
    mesh: the mesh of devices.
    source: where activations come from; its next bucket is not taken.
    abstract: the shapes and shardings of the state.
  """
  return _begin(config, mesh, source, abstract)[0]


def _begin(
  config: TrainConfig, mesh: Mesh, source: Source, abstract: TrainState
) -> tuple[TrainState, outliers.Norms]:
  """Makes the state of a run, and describes the norms of its first bucket."""

  def make(weights, batch):
    bucket = source.read(weights, batch)
    counted, left_out = outliers.leave_out(bucket, config.max_norm)
    norms = outliers.Norms(outliers.largest(bucket), left_out)
    scales, seed = estimate_scales(counted), config.data.seed
    state = states.init(config.stacks, seed, source.widths, scales)
    return state, norms

  layout = sharding(abstract, mesh)
  made = jax.jit(make, out_shardings=(layout, meshes.shard(mesh)))
  return made(source.weights, source.peek().batch)


def _run(
  setting: _Setting,
  state: TrainState,
  checkpoints: Checkpoints,
  monitor: RunMonitor,
  stop: ShutdownSignal,
) -> TrainState:
  config, source = setting.config, setting.source
  weights = source.weights
  number, step = int(state.step), None
  timing = CheckpointTiming(config.checkpoint_every, number)
  while number < config.steps and not stop.asked(number):
    bucket = source.take()
    step = step or compile_step(
      source.read, setting.groups, state, weights, bucket.batch
    )
    monitor.before_step(number + 1, bucket)
    state, metrics = step(state, weights, bucket.batch)
    number += 1
    monitor.after_step(number, bucket, metrics)
    if number < config.steps:
      source.peek()  # while the devices are busy
    monitor.drain(until=number - 1)
    saves = timing.is_due(number)
    replicas.check(config, setting.mesh, number, state, weights, saves)
    if saves:
      monitor.drain(until=number)  # what is broken is never saved
      monitor.flush()  # a run that resumes here needs the lines until here
      checkpoints.save(state, source.position)
  monitor.drain(until=number)
  monitor.flush()
  checkpoints.save(state, source.position)
  checkpoints.wait()
  return state


def _exit(step: int, stop: ShutdownSignal) -> None:
  if pod.is_leader():
    print(
      f"stopped at step {step}, saved {stop.seconds():.1f} s after it was asked"
      f" for; to go on:\n  {resume_command()}",
      file=sys.stderr,
    )
  sys.exit(stop.status)
