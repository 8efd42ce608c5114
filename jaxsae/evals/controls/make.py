"""Making the controls of a set of autoencoders, each of them once."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from jaxsae import pod
from jaxsae.evals.controls.linear_map import (
  LinearMaps,
  SecondMoments,
  has_moments,
)
from jaxsae.evals.controls.random_saes import random_decoder, random_encoder
from jaxsae.evals.controls.text import Activations
from jaxsae.evals.sparsity import sites_read
from jaxsae.evals.steps import in_steps
from jaxsae.lm import Lm, Taps
from jaxsae.sae import Sae
from jaxsae.token_batch import TokenBatch

CONTROLS = ("random_decoder", "random_encoder", "pca")


@dataclasses.dataclass(frozen=True)
class Controls:
  """The controls of a set of autoencoders.

  Attributes:
    saes: name of a control → its taps and itself.
    of: name of an autoencoder → kind of control → the name of the control.
  """

  saes: Mapping[str, tuple[Taps, Sae]]
  of: Mapping[str, Mapping[str, str]]


def make_controls(
  lm: Lm,
  placed: Mapping[str, tuple[Taps, Sae]],
  l0: Mapping[str, float],
  batches: Iterable[TokenBatch],
) -> Controls:
  """Makes the controls of autoencoders, one set for each taps, width and L0.

  Random ones are fitted to the first step of the text alone, and linear maps to
  all of it. Sites of more than 8,192 numbers have no linear maps.

  Args:
    lm: the language model.
    placed: name → taps and autoencoder of raw activations.
    l0: name → the mean number of its active latents of a token.
    batches: the text that they are fitted to.
  """
  first, maps = _read(lm, {taps for taps, _ in placed.values()}, batches)
  ranks = {name: max(1, round(x)) for name, x in l0.items()}
  saes: dict[str, tuple[Taps, Sae]] = {}
  of: dict[str, dict[str, str]] = {}
  for name, (taps, sae) in placed.items():
    makers = {
      "random_decoder": lambda t=taps, s=sae: random_decoder(first, t, s),
      "random_encoder": lambda t=taps, s=sae, n=l0[name]: random_encoder(
        first, t, s, n
      ),
    }
    if taps in maps:
      makers["pca"] = lambda t=taps, n=ranks[name]: maps[t].of_rank(
        n, max(ranks.values())
      )
    of[name] = {}
    for kind, make in makers.items():
      width = "" if kind == "pca" else f"/{sae.width}"
      of[name][kind] = f"{kind} {taps}{width}/l0_{ranks[name]}"
      if of[name][kind] not in saes:
        saes[of[name][kind]] = (taps, make())
  return Controls(saes, of)


def _read(
  lm: Lm, every: set[Taps], batches: Iterable[TokenBatch]
) -> tuple[Activations, dict[Taps, LinearMaps]]:
  """Returns the first step's activations, and linear maps by taps."""
  taps_of_all = sorted(every)
  narrow = [taps for taps in taps_of_all if has_moments(lm, taps)]
  first, sums = None, {}
  for step in in_steps(lm, batches, sites_read(taps_of_all)):
    text = Activations.of(lm, taps_of_all, step)
    first = first or text
    for taps in narrow:
      points = (first.mean_read(taps), first.mean_written(taps))
      new = SecondMoments.of(text, taps, points)
      sums[taps] = sums[taps] + new if taps in sums else new
  assert first is not None, "an evaluation has text"
  return first, {taps: _maps(first, taps, sums[taps]) for taps in narrow}


def _maps(first: Activations, taps: Taps, sums: SecondMoments) -> LinearMaps:
  means = (first.mean_read(taps), first.mean_written(taps))
  c, e = (np.asarray(x, np.float64) for x in pod.to_host(means))
  return LinearMaps(sums, (c, e), is_one_site=taps.reads == taps.writes)
