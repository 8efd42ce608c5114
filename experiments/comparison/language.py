"""A language model's activations: our autoencoders beside SAELens', in one run.

  pip install "jaxsae[test]"
  python -m experiments.comparison.language --out=docs/quality.md

All learn from the same activations of the small Gemma 2 in the same order, at
the same width, learning rate and schedules, and are judged on the same text
that none has seen. `trainers.py` says what is each side's own.
"""

import dataclasses
import functools
import importlib.metadata
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.comparison import trainers
from experiments.comparison.output import spread, tell
from experiments.comparison.trainers import Trial
from jaxsae import data, evals
from jaxsae import mesh as meshes
from jaxsae.data import DataConfig
from jaxsae.lm import Lm, Site, capture, load_lm
from jaxsae.mesh import MeshConfig

PREFIXES = (1 / 32, 3 / 32, 7 / 32, 15 / 32)  # arXiv 2503.17547
SIDES = {
  "jaxsae JumpReLU": trainers.train_ours,
  "SAELens JumpReLU": trainers.train_saelens,
  "jaxsae Matryoshka JumpReLU": functools.partial(
    trainers.train_ours, prefixes=PREFIXES
  ),
  "jaxsae BatchTopK": trainers.train_our_batch_topk,
  "SAELens BatchTopK": trainers.train_saelens_batch_topk,
}


@dataclasses.dataclass(frozen=True)
class Comparison:
  """What is compared."""

  lm: str = "gemma2-tiny"
  data: DataConfig = DataConfig(context=256)
  site: Site = Site("resid", 3)
  width: int = 1024  # latents
  updates: int = 400
  batch: int = 1024  # tokens of an update
  targets: tuple[float, ...] = (16, 48)
  seeds: tuple[int, ...] = (1, 2, 3)  # of initial weights
  rate: float = 2e-3
  pull: float = 3e-3  # λ where ‖x‖² is 1
  decay: float = 0.99  # of Adam's second moment
  rows: int = 32  # of text in a forward pass
  held_out: int = 8  # batches to judge by
  loss_batches: int = 2  # of them, for delta loss


def main():
  tell(__doc__, lambda: page(Comparison()))


def page(c: Comparison) -> str:
  """All of it: the training, and the table of what came of it."""
  mesh = meshes.make(MeshConfig(1, 1))
  lm = load_lm(c.lm, mesh=mesh)
  corpus = data.open_corpus(c.data, lm.tokenizer)
  x = activations(c, lm, corpus)
  lines = [title(c), *HEAD]
  for target in c.targets:
    for name, train in SIDES.items():
      found = [
        judge(c, lm, corpus, train(trial(c, x, target, seed)))
        for seed in c.seeds
      ]
      lines.append(row(target, name, found))
  return "\n".join(lines) + "\n"


def trial(c: Comparison, x: np.ndarray, target: float, seed: int) -> Trial:
  return Trial(x, c.width, (target,), c.rate, c.pull, c.decay, seed)


def activations(c: Comparison, lm: Lm, corpus) -> np.ndarray:
  """Those of text tokens, shuffled: [U, N, D]."""
  count, parts = c.updates * c.batch, []
  for batch in data.batches(corpus.train, c.rows, c.data.seed):
    x, mask = read(lm, c.site, batch)
    parts.append(np.asarray(x)[np.asarray(mask) > 0])
    if sum(map(len, parts)) >= count:
      break
  x = np.concatenate(parts)
  x = x[np.random.default_rng(0).permutation(len(x))[:count]]
  return x.reshape(c.updates, c.batch, -1).astype(np.float32)


def read(lm: Lm, site: Site, batch):
  """Activations [B, T, D] and the mask of text [B, T]."""
  batch = {k: jnp.asarray(v) for k, v in batch.items()}
  packing = {name: batch[name] for name in ("segments", "positions")}
  seen = _capture(lm, site, batch["tokens"], packing)
  return seen, lm.text_mask(batch["tokens"], batch["segments"])


@functools.partial(jax.jit, static_argnums=1)
def _capture(lm, site, tokens, packing):
  return capture(lm, tokens, site, **packing)[site]


def judge(c: Comparison, lm: Lm, corpus, saes) -> evals.Result:
  """The one autoencoder, on held-out text."""
  (sae,) = saes
  batches = lambda: itertools.islice(
    data.held_out_batches(corpus, c.rows), c.held_out
  )
  named = {"sae": (c.site, sae)}
  return evals.evaluate(lm, named, batches, c.loss_batches)["sae"]


HEAD = [
  "| target L0 | autoencoder | L0 | FVU | delta loss | dead |",
  "|---|---|---|---|---|---|",
]


def row(target: float, name: str, found: list[evals.Result]) -> str:
  cells = [
    spread([getattr(result, figure) for result in found], digits)
    for figure, digits in (
      ("l0", 1),
      ("fvu", 4),
      ("delta_loss", 3),
      ("dead", 3),
    )
  ]
  return f"| {' | '.join([f'{target:g}', name, *cells])} |"


def title(c: Comparison) -> str:
  version = importlib.metadata.version
  return f"""# As good as its peers

{c.width:,} latents on {c.site} of {c.lm}, from the same
{c.updates * c.batch:,} tokens in the same order, {len(c.seeds)} seeds, judged
on the same held-out text. Both sides have a learning rate of {c.rate:g}, a
decay of Adam's second moment of {c.decay:g}, and, where JumpReLU's L0 is pulled
to its target (quadratic), a λ of {c.pull:g}. Mean ± standard deviation over
seeds. jax {version("jax")}, sae-lens {version("sae-lens")}, torch
{version("torch")}.

    python -m experiments.comparison.language --out=docs/quality.md
"""


if __name__ == "__main__":
  main()
