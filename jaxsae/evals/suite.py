"""The whole evaluation: its results, as JSON and as a table."""

import dataclasses
import functools
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from jaxsae import tables
from jaxsae.errors import UserError
from jaxsae.evals.fidelity import Fidelity, measure_fidelity
from jaxsae.evals.keeper import Keeper
from jaxsae.evals.sparsity import Sparsity, measure_sparsity
from jaxsae.files import given_path, refusals_told, whole_file
from jaxsae.lm import Lm, Place, Taps
from jaxsae.sae import Sae
from jaxsae.token_batch import TokenBatch

# The meaning of each name in the file; written into it.
DEFINITIONS = {
  "tokens": "held-out text tokens read; BOS, EOS and padding never count",
  "l0": "mean active latents of a token",
  "fvu": "Σ‖y - ŷ‖² / Σ‖y - mean y‖², both over all tokens, with y the"
  " activation that is to be reconstructed",
  "dead": "share of latents active on none of the tokens",
  "density": "counts of latents by log10 of the share of tokens they are"
  " active on; dead latents are counted apart",
  "loss_tokens": "next tokens predicted for the losses",
  "clean_loss": "mean cross-entropy of the language model, in nats",
  "spliced_loss": "the same with the reconstruction in place on all text",
  "zero_loss": "the same with the activation set to zero on all text",
  "mean_loss": "the same with the activation set to its mean on all text",
  "delta_loss": "spliced_loss - clean_loss",
  "loss_recovered_zero": "(zero_loss - spliced_loss)"
  " / (zero_loss - clean_loss); null where the ablation adds no loss that is"
  " clearly above zero: above twice its standard error over rows of text",
  "loss_recovered_mean": "(mean_loss - spliced_loss)"
  " / (mean_loss - clean_loss); null likewise",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
  """The evaluation of one autoencoder; `DEFINITIONS` explains each figure.

  Losses are in nats. `density` [F] is the share of tokens on which each latent
  is active. A ratio is NaN where it is undefined.
  """

  name: str
  site: Place
  width: int
  tokens: int
  l0: float
  fvu: float
  dead: float
  loss_tokens: int
  clean_loss: float
  spliced_loss: float
  zero_loss: float
  mean_loss: float
  delta_loss: float
  loss_recovered_zero: float
  loss_recovered_mean: float
  density: np.ndarray

  def to_json(self) -> dict:
    """Returns the record for a file: density as a histogram, null for NaN."""
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    fields |= {"site": str(self.site), "density": self._histogram()}
    return {"version": 1} | {k: _finite(v) for k, v in fields.items()}

  def _histogram(self) -> dict:
    """Counts latents by log10 density, in four bins a decade.

    The lowest edge is at most 1/n, the least density that n tokens can show.
    Edges are multiples of 1/4, so histograms of different n line up.
    """
    lowest = min(-1, math.floor(-math.log10(self.tokens)))
    edges = np.linspace(lowest, 0, 1 - 4 * lowest)
    alive = self.density[self.density > 0]
    counts, _ = np.histogram(np.log10(alive), edges)
    return {
      "log10_edges": edges.tolist(),
      "counts": counts.tolist(),
      "dead": len(self.density) - len(alive),
    }


def evaluate(
  lm: Lm,
  saes: Mapping[str, tuple[Place, Sae]],
  batches: Callable[[], Iterable[TokenBatch]],
  loss_batches: int,
  progress: Callable[[str, int], None] | None = None,
  keeper: Keeper | None = None,
) -> dict[str, Result]:
  """Measures autoencoders on held-out text.

  Sums are pooled over all tokens and ratios formed once, so the batch size does
  not matter. On a mesh, rows are split over `data`. Sites are data to what is
  compiled: its amount depends on the shapes of autoencoders, not on how many
  there are, nor at how many sites.

  Args:
    lm: the language model.
    saes: name → site and autoencoder of raw activations (`sae.fold`), or the
      taps and a transcoder or crosscoder.
    batches: called twice; returns the same held-out batches from the start, all
      of one length T, whole in every process, or sharded over a mesh.
    loss_batches: number of batches, from the start, on which losses are
      measured; each takes a forward pass per autoencoder, and two per site.
    progress: called with "sparsity" and the number of batches done, then with
      "fidelity" and the number of passes over the loss batches done, of
      `count_passes`.
    keeper: keeps the sums so far, and may have those of an evaluation that was
      stopped, to go on with; it must be one of the same arguments.

  Raises:
    UserError: the model does not have a site, an autoencoder does not fit its
      site, or there is no text.
  """
  _check(lm, saes, loss_batches)
  report = progress or (lambda phase, done: None)
  every = _counted(batches(), "sparsity", report)
  sparsity, moments = measure_sparsity(lm, saes, every, keeper)

  means = {site: found.mean for site, found in moments.items()}
  first = itertools.islice(batches(), loss_batches)
  passed = functools.partial(report, "fidelity")
  fidelity = measure_fidelity(lm, saes, means, first, keeper, passed)
  return {
    name: _result(name, site, sae, sparsity[name], fidelity[name])
    for name, (site, sae) in saes.items()
  }


def write(
  results: Mapping[str, Result],
  path: str | os.PathLike[str],
  others: Iterable[Mapping[str, Any]] = (),
  **about: Any,
) -> None:
  """Writes results and facts about them to a JSON file, atomically.

  Args:
    results: the results of `evaluate`.
    path: the file, such as `RUN/eval/STEP.json`; its folders are made.
    others: records of other results, as `Result.to_json` makes them.
    **about: anything that JSON can hold, such as the step and the corpus.

  Raises:
    UserError: the file cannot be written.
  """
  data = {
    "version": 1,
    "about": about,
    "definitions": DEFINITIONS,
    "results": [*others, *(result.to_json() for result in results.values())],
  }
  text = json.dumps(data, indent=2, allow_nan=False) + "\n"
  with refusals_told(path), whole_file(given_path(path)) as partial:
    partial.write_text(text)


def table(results: Mapping[str, Result], width: int | None = None) -> Table:
  """Makes a table of at most 80 columns with one line per autoencoder.

  Args:
    results: the results of `evaluate`.
    width: the columns of the terminal, by default of this one. Where they are
      fewer, figures are left out until the names fit.
  """
  tokens = {f"{result.tokens:,}" for result in results.values()}
  made = Table(
    box=box.SIMPLE_HEAD,
    show_edge=False,
    pad_edge=False,
    padding=(0, 1, 0, 0),
    caption=f"On {' or '.join(sorted(tokens))} tokens of held-out text."
    " Recovered: how much of the loss that ablation adds the autoencoder"
    " avoids.",
    caption_justify="left",
  )
  made.add_column("autoencoder", overflow="fold")
  for head in _FIGURES:
    made.add_column(head, justify="right", no_wrap=True)
  for result in results.values():
    made.add_row(result.name, *(show(result) for show in _FIGURES.values()))
  return tables.fit(made, width, _DISPENSABLE)


# The figures by their heads, in order; and those that are left out first where
# there is no room.
_FIGURES: Mapping[str, Callable[[Result], str]] = {
  "width": lambda r: str(r.width),
  "L0": lambda r: _number(r.l0, ".1f"),
  "FVU": lambda r: _number(r.fvu, ".3f"),
  "delta\nloss": lambda r: _number(r.delta_loss, ".4f"),
  "recovered\n(zero)": lambda r: _number(r.loss_recovered_zero, ".3f"),
  "recovered\n(mean)": lambda r: _number(r.loss_recovered_mean, ".3f"),
  "dead": lambda r: _number(r.dead, ".1%"),
}
_DISPENSABLE = ("width", "recovered\n(mean)", "dead", "recovered\n(zero)")


def _number(value: float, form: str) -> str:
  return format(value, form) if math.isfinite(value) else "-"


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
  name: str, site: Place, sae: Sae, sparsity: Sparsity, fidelity: Fidelity
) -> Result:
  return Result(
    name=name,
    site=site,
    width=sae.width,
    tokens=sparsity.tokens,
    l0=sparsity.l0,
    fvu=sparsity.fvu,
    dead=sparsity.dead,
    loss_tokens=fidelity.tokens,
    clean_loss=fidelity.clean_loss,
    spliced_loss=fidelity.spliced_loss,
    zero_loss=fidelity.zero_loss,
    mean_loss=fidelity.mean_loss,
    delta_loss=fidelity.delta_loss,
    loss_recovered_zero=fidelity.loss_recovered_zero,
    loss_recovered_mean=fidelity.loss_recovered_mean,
    density=sparsity.density,
  )


def _finite(value):
  """Returns None for a float that is not finite, which JSON cannot hold."""
  is_finite = not isinstance(value, float) or math.isfinite(value)
  return value if is_finite else None
