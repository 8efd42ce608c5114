"""A run after training: its autoencoders, and what is made of them."""

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Mapping

import jax
from etils import epath

from jaxsae import data, evals, pod
from jaxsae import explore as explorer
from jaxsae import export as exports
from jaxsae import mesh as meshes
from jaxsae.data import Corpus
from jaxsae.errors import UserError
from jaxsae.lm import Lm, Site, load_lm
from jaxsae.mesh import MeshConfig
from jaxsae.sae import Sae
from jaxsae.train import state as states
from jaxsae.train import workdir
from jaxsae.train.abstract import abstract_state
from jaxsae.train.checkpoint import Checkpoints
from jaxsae.train.config import TrainConfig
from jaxsae.train.loop import open_corpus
from jaxsae.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Run:
  """What a run's folder holds.

  Attributes:
    path: the folder.
    config: what it was started with.
    lm: the language model.
    step: of the newest checkpoint.
    saes: name → its site, and the autoencoder of raw activations.
    targets: name → the L0 it was trained for, or None.
  """

  path: epath.Path
  config: TrainConfig
  lm: Lm
  step: int
  saes: Mapping[str, tuple[Site, Sae]]
  targets: Mapping[str, float | None]


def open_run(path) -> Run:
  """Opens the newest checkpoint of a run, on all devices of this machine."""
  path = epath.Path(path)
  config = workdir.read_config(path)
  checkpoints = Checkpoints(path / "checkpoints", keep=None)
  if checkpoints.latest is None:
    raise UserError(f"{path} has no checkpoint yet; train it first.")
  # As wide over `model` as in training, or as this machine allows.
  model = math.gcd(config.mesh.model, jax.device_count())
  mesh = meshes.make(MeshConfig(model=model))
  lm = load_lm(config.lm, mesh=mesh, fsdp=config.fsdp)
  state, _ = checkpoints.restore(abstract_state(config, lm.config, mesh))
  checkpoints.close()
  saes = dict(_folded(config, state))
  return Run(
    path=path,
    config=config,
    lm=lm,
    step=int(state.step),
    saes=saes,
    targets={
      name: member.target
      for stack in config.stacks
      for name, member in zip(stack.names, stack.members, strict=True)
    },
  )


def _folded(config: TrainConfig, state: TrainState):
  for stack, trained in zip(config.stacks, state.stacks, strict=True):
    for name, sae in states.folded(stack, trained).items():
      yield name, (stack.site, sae)


def evaluate(run: Run) -> dict[str, evals.Result]:
  """Judges every autoencoder on held-out text; writes `eval/STEP.json`."""
  batches = functools.partial(_held_out, run, _corpus(run))
  results = evals.evaluate(
    run.lm, run.saes, batches, run.config.eval.loss_batches
  )
  pod.lead(lambda: evals.write(results, _record(run), step=run.step))
  return results


def figures(run: Run) -> dict[str, dict]:
  """What `eval/STEP.json` says of each autoencoder; judged now if it must."""
  if not pod.lead(_record(run).exists):
    evaluate(run)
  record = pod.lead(lambda: json.loads(_record(run).read_text()))
  return {result["name"]: result for result in record["results"]}


def export(run: Run, format: str, out) -> list[str]:
  """Writes every autoencoder in a published format, below a new folder.

  Args:
    run: whose.
    format: one of `jaxsae.export.FORMATS`.
    out: the folder; it must not exist.

  Returns:
    The files' paths within the folder.
  """
  measured = figures(run)
  saes = [
    (site, pod.fetch(sae), measured[name]["l0"])
    for name, (site, sae) in run.saes.items()
  ]
  return pod.lead(lambda: exports.write_all(format, saes, out, run.lm))


def explore(run: Run) -> epath.Path:
  """Writes the report, `report/index.html`, and returns its path.

  Raises:
    UserError: in a pod, whose processes would all make it.
  """
  if jax.process_count() > 1:
    raise UserError(
      "a report is made by one process, and this is one of"
      f" {jax.process_count()}; run `jaxsae explore {run.path}` on one host."
    )
  measured = figures(run)
  for name, target in run.targets.items():
    measured[name]["target_l0"] = target
  corpus = _corpus(run)
  report = explorer.survey(
    run.lm,
    run.saes,
    _held_out(run, corpus),
    corpus.documents,
    measured,
    title=run.path.name,
    run=_about(run),
  )
  path = run.path / "report" / "index.html"
  explorer.write(report, path)
  return path


def _record(run: Run) -> epath.Path:
  return run.path / "eval" / f"{run.step}.json"


def _corpus(run: Run) -> Corpus:
  """The run's text, if it is still cut up as it was in training."""
  corpus = open_corpus(run.config, run.lm)
  workdir.check_policy_of(run.path, corpus.policy)
  return corpus


def _held_out(run: Run, corpus: Corpus):
  """The held-out batches from the start, in the same order at each call."""
  settings = run.config.eval
  batches = data.held_out_batches(corpus, settings.batch)
  return itertools.islice(batches, settings.batches)


def _about(run: Run) -> dict[str, str]:
  config, sweep = run.config, run.config.sae
  others = ", ".join(s.name or s.architecture for s in config.also)
  return {
    "Language model": config.lm,
    "Text": config.data.source,
    "Trained on": f"{run.step * config.bucket_tokens:,} tokens",
    "Autoencoders": f"{len(run.saes)}, width {_comma(sweep.widths)}",
    "Sites": _comma(sweep.sites),
    "Architecture": sweep.architecture,
    "Penalty": sweep.penalty,
    "Target L0": _comma(sweep.target_l0) or "none",
    "Bandwidth ε": f"{sweep.bandwidth:g}",
    "Learning rate": f"{sweep.optim.lr:g}",
    "Beside it": others or "nothing",
    "Update": f"{config.bucket.update_tokens:,} tokens",
    "Run": str(run.path),
  }


def _comma(values) -> str:
  return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
