"""Probing of finished runs and of downloaded autoencoders."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated

from jaxsae import mesh as meshes
from jaxsae import overrides, pod
from jaxsae.errors import UserError, first_few
from jaxsae.evals import downstream
from jaxsae.files import check_writable, given_path
from jaxsae.formats import autoencoders_at, is_run, load_sae
from jaxsae.lm import Lm, Taps, load_lm
from jaxsae.lm.belongs import check_model, check_place
from jaxsae.mesh import MeshConfig
from jaxsae.origin import origin_of
from jaxsae.overrides import Count, PlaceOrEmpty, Range
from jaxsae.runs.open import Run, open_run
from jaxsae.sae import Sae


@dataclasses.dataclass(frozen=True)
class ProbeConfig:
  """What autoencoders are probed for, and where the figures go."""

  # A file of labelled texts, or a folder of such files, as sae-probes and
  # SAEBench publish them. Empty: texts from Python's standard library.
  tasks: PlaceOrEmpty = ""
  k: tuple[Count, ...] = (1, 2, 5, 16)  # numbers of latents in a probe
  seeds: Count = 3  # draws of training and test texts
  context: Annotated[int, Range(2, 100_000)] = (
    128  # tokens of a text that are read
  )
  train: Annotated[int, Range(20, 1_000_000)] = (
    4000  # training texts of a probe, at most
  )
  test: Annotated[int, Range(20, 1_000_000)] = (
    1000  # test texts of a probe, at most
  )
  # The language model of downloaded autoencoders. Empty: as their files say.
  lm: PlaceOrEmpty = ""
  # The site of downloaded autoencoders, as in resid.12. Empty: as files say.
  site: PlaceOrEmpty = ""
  # The file of figures. Empty: eval/STEP.probing.json of a lone run, else none.
  out: PlaceOrEmpty = ""

  def __post_init__(self):
    overrides.check(self)

  def texts(self) -> list[downstream.LabelledTexts]:
    """Returns the labelled texts; tells which files were left out."""
    if not self.tasks:
      return downstream.python_texts()
    found = downstream.read_texts(self.tasks)
    left = [f"{name} ({why})" for name, why in found.left_out.items()]
    if left:
      pod.print_on_leader(f"left out: {first_few(left)}")
    return list(found.sets)


def probe(
  paths: Sequence[str], config: ProbeConfig | None = None
) -> dict[str, downstream.ProbingResult]:
  """Probes the autoencoders of runs, or those that lie below other paths.

  Args:
    paths: runs, or autoencoders of any format, all of one language model.
    config: what they are probed for.

  Raises:
    UserError: a path is neither, the model or the site of an autoencoder is not
      known, or they are of different models.
  """
  config = config or ProbeConfig()
  runs = {path: open_run(path) for path in paths if is_run(given_path(path))}
  out = config.out or (_record_of(*runs.values()) if len(paths) == 1 else "")
  if out:
    pod.on_leader(lambda: check_writable(out, "choose another place by --out"))
  lm, saes = _gathered(paths, runs, config)
  how = downstream.Probing(
    ks=config.k,
    seeds=tuple(range(config.seeds)),
    context=config.context,
    train=config.train,
    test=config.test,
  )
  told = lambda name: pod.print_on_leader(f"probed for {name}")
  results = downstream.probe(lm, saes, config.texts(), how, told)
  if out:
    about = overrides.to_json(config)
    pod.on_leader(lambda: downstream.write(results, out, settings=about))
    pod.print_on_leader(out)
  return results


def _record_of(run: Run | None = None) -> str:
  """Returns the file of a run's figures, or "" where there is no run."""
  if run is None:
    return ""
  return str(run.path / "eval" / f"{run.step}.probing.json")


def _gathered(
  paths: Sequence[str], runs: Mapping[str, Run], config: ProbeConfig
) -> tuple[Lm, dict[str, tuple[Taps, Sae]]]:
  """Returns the one language model, and all autoencoders with their taps."""
  loaded = {
    str(one): load_sae(one)
    for path in paths
    if path not in runs
    for one in autoencoders_at(path)
  }
  models = {run.config.lm for run in runs.values()}
  models |= {config.lm or _model_of(name, sae) for name, sae in loaded.items()}
  if len(models) != 1:
    raise UserError(
      f"All autoencoders must be of one language model, not of {len(models)}"
      f" ({', '.join(sorted(models))}); probe them one by one."
    )
  if runs:
    lm = next(iter(runs.values())).lm
  else:
    lm = load_lm(models.pop(), mesh=meshes.make(MeshConfig()))
  found: dict[str, tuple[Taps, Sae]] = {}
  for path, run in runs.items():
    before = f"{path}/" if len(paths) > 1 else ""
    found |= {f"{before}{name}": at for name, at in run.saes.items()}
  for name, sae in loaded.items():
    taps = Taps.of(config.site or _site_of(name, sae))
    check_place(sae, taps)
    check_model(sae, taps, lm)
    found[name] = taps, sae
  return lm, found


def _model_of(name: str, sae: Sae) -> str:
  origin = origin_of(sae)
  if origin is None or not origin.model:
    raise UserError(
      f"{name} does not say which language model it is of; give --lm=NAME."
    )
  return origin.model


def _site_of(name: str, sae: Sae) -> str:
  origin = origin_of(sae)
  if origin is None or not origin.taps:
    raise UserError(
      f"{name} does not say which site it is of; give --site=resid.12, or"
      " another."
    )
  return origin.taps
