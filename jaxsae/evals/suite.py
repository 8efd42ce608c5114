"""The whole evaluation of a set of autoencoders."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxsae.errors import UserError
from jaxsae.evals.controls import make_controls
from jaxsae.evals.directions import interference
from jaxsae.evals.fidelity import Fidelity, measure_fidelity
from jaxsae.evals.intervals import Interval, intervals
from jaxsae.evals.keeper import Keeper, OfControls
from jaxsae.evals.result import PERCENTILES, Result
from jaxsae.evals.sparsity import Sparsity, measure_sparsity
from jaxsae.lm import Lm, Place, Taps
from jaxsae.sae import Sae
from jaxsae.token_batch import TokenBatch

Progress = Callable[[str, int], None]
Kind = Callable[[int], str]


def evaluate(
  lm: Lm,
  saes: Mapping[str, tuple[Place, Sae]],
  batches: Callable[[], Iterable[TokenBatch]],
  loss_batches: int,
  progress: Progress | None = None,
  keeper: Keeper | None = None,
  control_batches: int | None = None,
  kind: Kind | None = None,
) -> dict[str, Result]:
  """Measures autoencoders, and controls of them, on held-out text.

  Sums are pooled over all tokens and ratios formed once, so the batch size does
  not matter. On a mesh, rows are split over `data`. Sites are data to what is
  compiled: its amount depends on the shapes of autoencoders, not on how many
  there are, nor at how many sites.

  Args:
    lm: the language model.
    saes: name → site and autoencoder of raw activations (`sae.fold`), or the
      taps and a transcoder or crosscoder.
    batches: called a few times; returns the same held-out batches from the
      start, all of one length T, whole in every process, or sharded over a
      mesh.
    loss_batches: number of batches, from the start, on which losses are
      measured; each takes a forward pass per autoencoder, and two per site.
    progress: called with "sparsity" and the number of batches done; with
      "fidelity" and the number of passes over the loss batches done, of
      `count_passes`; and with "controls" and the number of those for controls.
    keeper: keeps the sums so far, and may have those of an evaluation that was
      stopped, to go on with; it must be one of the same arguments.
    control_batches: number of batches, from the start, on which controls are
      measured. None: there are no controls.
    kind: document → its kind, by which delta loss is told apart too.

  Raises:
    UserError: the model does not have a site, an autoencoder does not fit its
      site, or there is no text.
  """
  _check(lm, saes, loss_batches)
  placed = {name: (Taps.of(at), sae) for name, (at, sae) in saes.items()}
  report = progress or (lambda phase, done: None)
  keeper = keeper or Keeper()
  found = _measure(lm, placed, batches, loss_batches, report, keeper, kind)
  if control_batches is not None:
    first = lambda: itertools.islice(batches(), control_batches)
    losses = min(control_batches, loss_batches)
    l0 = {name: result.l0 for name, result in found.items()}
    made = make_controls(lm, placed, l0, first())
    counted = lambda phase, done: (
      phase == "fidelity" and report("controls", done)
    )
    keeper = OfControls(keeper)
    controls = _measure(lm, made.saes, first, losses, counted, keeper, None)
    found = {
      name: dataclasses.replace(
        result,
        controls={kind: controls[of] for kind, of in made.of[name].items()},
      )
      for name, result in found.items()
    }
  return {
    name: dataclasses.replace(found[name], site=place)
    for name, (place, _) in saes.items()
  }


def _measure(
  lm: Lm,
  placed: Mapping[str, tuple[Taps, Sae]],
  batches: Callable[[], Iterable[TokenBatch]],
  loss_batches: int,
  report: Progress,
  keeper: Keeper,
  kind: Kind | None,
) -> dict[str, Result]:
  """Measures autoencoders, without controls."""
  every = _counted(batches(), "sparsity", report)
  sparsity, moments = measure_sparsity(lm, placed, every, keeper)
  means = {site: found.mean for site, found in moments.items()}
  first = itertools.islice(batches(), loss_batches)
  passed = functools.partial(report, "fidelity")
  fidelity = measure_fidelity(lm, placed, means, first, keeper, passed, kind)
  ranges = _intervals(sparsity, fidelity)
  return {
    name: _result(name, at, sae, sparsity[name], fidelity[name], ranges[name])
    for name, (at, sae) in placed.items()
  }


def _intervals(
  sparsity: Mapping[str, Sparsity], fidelity: Mapping[str, Fidelity]
) -> dict[str, dict[str, Interval]]:
  """Returns the interval of each figure, by autoencoder and figure."""
  found: dict[str, dict[str, Interval]] = {name: {} for name in sparsity}
  for measured in (sparsity, fidelity):  # each on documents of its own
    ratios = {
      (name, figure): ratio
      for name, one in measured.items()
      for figure, ratio in one.ratios.items()
    }
    for (name, figure), ends in intervals(ratios).items():
      found[name][figure] = ends
  return found


def _check(lm: Lm, saes, loss_batches: int) -> None:
  if loss_batches < 1:
    raise UserError(
      f"loss_batches={loss_batches} measures no loss; give 1 or more."
    )
  for name, (place, sae) in saes.items():
    taps = Taps.of(place)
    taps.check(lm.config)
    d_in, d = taps.d_in(lm.config), taps.d(lm.config)
    wanted = {"b_dec": (d,), "w_enc": (d_in, sae.width)}
    for field, shape in wanted.items():
      found = getattr(sae, field).shape
      if found != shape:
        raise UserError(
          f"Autoencoder {name} has {field} of shape {found}, but {taps} needs"
          f" {shape}; give an autoencoder that was trained on this site."
        )


def _counted(batches, phase: str, report) -> Iterator[TokenBatch]:
  """Yields the batches; reports each when the next one is asked for."""
  for done, batch in enumerate(batches, start=1):
    yield batch
    report(phase, done)


def _result(
  name: str,
  taps: Taps,
  sae: Sae,
  sparsity: Sparsity,
  fidelity: Fidelity,
  ranges: Mapping[str, Interval],
) -> Result:
  density = sparsity.density
  alive = density[density > 0]
  percentiles = np.percentile(alive, PERCENTILES) if len(alive) else ()
  return Result(
    name=name,
    site=taps,
    width=sae.width,
    **_shared(sparsity),
    legacy_fvu_per_token=sparsity.fvu_per_token,
    legacy_fvu_of_variances=sparsity.fvu_of_variances,
    density_above_1_percent=float((density > 0.01).mean()),
    density_above_10_percent=float((density > 0.1).mean()),
    density_percentiles={
      str(share): float(x)
      for share, x in zip(PERCENTILES, percentiles, strict=False)
    },
    interference=interference(sae),
    **_shared(fidelity, but=("tokens",)),
    loss_tokens=fidelity.tokens,
    delta_loss_by_position=fidelity.by_position,
    delta_loss_by_kind=fidelity.by_kind,
    intervals=dict(ranges),
  )


def _shared(
  figures: Sparsity | Fidelity, but: Sequence[str] = ()
) -> dict[str, Any]:
  """Returns the figures that have the same name in a `Result`."""
  names = {field.name for field in dataclasses.fields(Result)} - set(but)
  return {x: getattr(figures, x) for x in names if hasattr(figures, x)}
