"""The loop: reads buckets, calls the step, saves and tells."""

import shlex
import signal
import sys
from collections.abc import Callable

import jax
from jax.sharding import Mesh

from jaxsae import data
from jaxsae import mesh as meshes
from jaxsae.data import Corpus
from jaxsae.errors import UserError
from jaxsae.lm import Lm, load_lm
from jaxsae.train import choice, workdir
from jaxsae.train import state as states
from jaxsae.train.abstract import abstract_state
from jaxsae.train.checkpoint import Checkpoints
from jaxsae.train.config import TrainConfig
from jaxsae.train.log import Log
from jaxsae.train.state import TrainState
from jaxsae.train.step import Batch, compile_step, estimate_scales

INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it


def train(config: TrainConfig) -> TrainState:
  """Trains, or goes on with, the run in `config.workdir`.

  Ctrl-C ends the step at hand, leaves a checkpoint, prints how to go on and
  exits with status 130; a second Ctrl-C exits at once.

  Raises:
    UserError: something about the run can not be.
  """
  mesh = meshes.make(config.mesh)
  states.check_rows(config, mesh)
  data.check_source(config.data.source)  # before weights that take minutes
  lm = load_lm(config.lm, mesh=mesh, fsdp=config.fsdp)
  lm.check_length(config.data.context)
  for site in config.sites:
    site.check(lm.config)
  print(f"reading {config.data.source} …", flush=True)
  corpus = open_corpus(config, lm)
  _say_what_is_left_out(corpus)
  batches = _batches(config, corpus)
  path = workdir.claim(config, corpus.policy)
  checkpoints = Checkpoints(path / "checkpoints", config.keep_checkpoints)
  state = _start(config, mesh, lm, checkpoints, batches)
  _announce(config, mesh, corpus, int(state.step))
  print(*choice.lines(config, mesh, state, lm), sep="\n")
  print("compiling the step …", flush=True)
  with Log(config, path, int(state.step)) as log, _Interrupt() as interrupt:
    state = _run(config, mesh, lm, state, batches, checkpoints, log, interrupt)
  checkpoints.close()
  if interrupt.asked and int(state.step) < config.steps:
    _say_how_to_go_on(int(state.step))
  return state


def open_corpus(config: TrainConfig, lm: Lm) -> Corpus:
  """The run's text."""
  if lm.tokenizer is None:
    raise UserError(
      f"{config.lm} has no tokenizer.model, so it can not read text; put its"
      " tokenizer beside its weights."
    )
  return data.open_corpus(config.data, lm.tokenizer)


def _say_what_is_left_out(corpus: Corpus) -> None:
  if corpus.unreadable:
    some = "; ".join(corpus.unreadable[:3])
    rest = "; …" if len(corpus.unreadable) > 3 else ""
    print(
      f"left out {len(corpus.unreadable)} texts: {some}{rest}", file=sys.stderr
    )


def _announce(config, mesh, corpus, step) -> None:
  count = sum(len(stack.names) for stack in config.stacks)
  shape = "x".join(str(size) for size in mesh.devices.shape)
  print(
    f"{count} autoencoders at"
    f" {', '.join(map(str, config.sites))}, from one forward pass of"
    f" {config.lm}, on {mesh.devices.size} device(s) as {shape}\n"
    f"{config.tokens:,} of {corpus.train.tokens:,} tokens, in {config.steps}"
    f" buckets of {config.bucket_tokens:,}; starts after bucket {step}",
    flush=True,
  )


def _batches(config, corpus):
  rows = config.bucket.microbatches * config.bucket.rows
  return data.batches(corpus.train, rows, config.data.seed)


def _start(config, mesh, lm, checkpoints, batches) -> TrainState:
  """The newest checkpoint, or the beginning."""
  abstract = abstract_state(config, lm.config, mesh)
  if checkpoints.latest is not None:
    state, position = checkpoints.restore(abstract)
    batches.set_state(position)
    return state
  # The first bucket is read for its scale, then again to train on.
  position = batches.get_state()
  first = next_bucket(config, mesh, batches)
  batches.set_state(position)
  return _begin(config, mesh, lm, abstract, first)


def _begin(config, mesh, lm, abstract, bucket) -> TrainState:
  def begin(lm, bucket):
    scales = estimate_scales(config, mesh, lm, bucket)
    return states.init(config, lm.config, scales)

  layout = states.sharding(abstract, mesh)
  return jax.jit(begin, out_shardings=layout)(lm, bucket)


def next_bucket(config: TrainConfig, mesh: Mesh, batches) -> Batch:
  """The next bucket on the devices: int [M, B, T] each."""
  rows = next(batches)
  shape = (config.bucket.microbatches, config.bucket.rows, -1)
  layout = meshes.shard(mesh, None, "data", None)
  return {
    name: jax.device_put(rows[name].reshape(shape), layout)
    for name in ("tokens", "segments", "positions")
  }


def _run(
  config, mesh, lm, state, batches, checkpoints, log, interrupt
) -> TrainState:
  number, last, step = int(state.step), None, None
  while number < config.steps and not interrupt.asked:
    bucket = next_bucket(config, mesh, batches)
    step = step or compile_step(config, mesh, state, lm, bucket)
    state, metrics = step(state, lm, bucket)
    number += 1
    # Of the step before: the devices are busy with this one meanwhile.
    if last is not None:
      log.write(*last)
    logged = number % config.log_every == 0 or number == config.steps
    last = (number, metrics) if logged else None
    if number % config.checkpoint_every == 0:
      checkpoints.save(state, batches.get_state())
  if last is not None:
    log.write(*last)
  checkpoints.save(state, batches.get_state())
  checkpoints.wait()
  return state


class _Interrupt:
  """Turns the first Ctrl-C into a wish; the second is the usual exception.

  A step's input is gone once the step is under way, so an exception in the
  middle of the loop would leave nothing to save.
  """

  def __init__(self):
    self.asked = False
    self._before: Callable | int | None = None

  def __enter__(self):
    self._before = signal.signal(signal.SIGINT, self._ask)
    return self

  def __exit__(self, *_):
    signal.signal(signal.SIGINT, self._before)

  def _ask(self, *_):
    self.asked = True
    signal.signal(signal.SIGINT, self._before)
    print("\nstopping after this step …", file=sys.stderr, flush=True)


def _say_how_to_go_on(step: int) -> None:
  command = shlex.join([sys.executable, *sys.argv])
  print(f"stopped at step {step}; to go on:\n  {command}", file=sys.stderr)
  sys.exit(INTERRUPTED)
