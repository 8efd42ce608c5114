"""Feature absorption of "starts with this letter", letter by letter.

Words are single tokens of the tokenizer. The language model reads each at the
end of a prompt that spells others, as in

  " dog has the first letter: D\\n apple has the first letter: A\\n cat"

and its activation there is what is probed. SAEBench's prompts go on behind the
word; a causal model does not see that, so nothing changes. Definitions are in
`absorbed.py`. What differs from SAEBench's `absorption`:

- Probes are fitted to their minimum by scikit-learn, on inputs of unit
  deviation, with C = 1; there, dense probes take 50 epochs of Adam. The L1
  probe that ranks latents has the same objective, and is fitted to its minimum.
- At most `words` words are read, drawn by the seed; there, all.
- F1 is measured on the words that absorption is measured on, as there.

Where a letter's probe has an F1 of at most 0.6 on held-out words, the model
does not tell the letter well enough for anything to be absorbed, and the letter
has no figures. With fewer than 20 letters there is no mean, as in SAEBench.

Shapes: W words, D width of what is read, F latents.
"""

import dataclasses
import re
import string
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse

from jaxsae.errors import UserError
from jaxsae.evals.downstream import logistic
from jaxsae.evals.downstream.absorbed import (
  MOST_MAIN,
  absorption,
  main_count,
)
from jaxsae.evals.downstream.pool import pooled
from jaxsae.lm import Lm, Place, Taps
from jaxsae.sae import Sae

DEFINITIONS = {
  "probe_f1": "F1 of a linear probe of the activation on held-out words; at"
  " most 0.6, and the letter has no other figures",
  "words": "held-out words of the letter that the probe says yes to",
  "main": "the latents of the letter, those that an L1 probe weighs most; one"
  " more counts for as long as it adds over 0.03 to the F1 of their probe",
  "absorption_fraction": "mean over these words of the share of the letter's"
  " direction that other latents contribute in place of the main ones",
  "full_absorption": "share of these words on which no main latent is active"
  " and a single other one contributes at least 0.4 of the projection",
  "splits": "main latents of a letter",
  "mean": "over letters that have figures, with its standard deviation over"
  " letters; null if there are fewer than 20",
}

_WORD = re.compile(r" ?[A-Za-z]+")
_EXAMPLES = 10  # spelled before the word
_TEST_SHARE = 0.2
_LEAST_WORDS = 5  # of a letter, in training and in the test
_LEAST_F1 = 0.6
_LEAST_LETTERS = 20
_PENALTY = 0.01  # of the L1 probe


@dataclasses.dataclass(frozen=True)
class Letter:
  """The figures of one letter; `DEFINITIONS` explains them.

  Those beside `probe_f1` are None where the probe is too weak.
  """

  probe_f1: float
  words: int | None = None
  main: tuple[int, ...] | None = None
  absorption_fraction: float | None = None
  full_absorption: float | None = None


@dataclasses.dataclass(frozen=True)
class AbsorptionResult:
  """The absorption of first letters in one autoencoder.

  Attributes:
    name: the autoencoder's name.
    site: the sites that it reads and writes.
    width: the number of its latents.
    words: words that were read, for training and test.
    letters: letter → its figures.
  """

  name: str
  site: Place
  width: int
  words: int
  letters: Mapping[str, Letter]

  @property
  def told(self) -> list[Letter]:
    """The letters that the language model tells, so that they have figures."""
    return [x for x in self.letters.values() if x.words is not None]

  @property
  def is_defined(self) -> bool:
    """Whether there are enough letters for a mean."""
    return len(self.told) >= _LEAST_LETTERS

  @property
  def verdict(self) -> str:
    """Says in a sentence how many letters have figures."""
    mean = np.mean([letter.probe_f1 for letter in self.letters.values()])
    said = (
      f"The probe tells {len(self.told)} of {len(self.letters)} letters with"
      f" F1 above {_LEAST_F1} (mean F1 {mean:.2f})"
    )
    if self.is_defined:
      return f"{said}."
    return f"{said}; a mean over letters needs {_LEAST_LETTERS}."

  def mean(self, figure: str) -> tuple[float, float] | None:
    """Returns a figure's mean and standard deviation over letters, or None."""
    if not self.is_defined:
      return None
    found = [self._value(letter, figure) for letter in self.told]
    return float(np.mean(found)), float(np.std(found, ddof=1))

  def _value(self, letter: Letter, figure: str) -> float:
    if figure == "splits":
      return len(letter.main or ())
    return getattr(letter, figure)

  def to_json(self) -> dict:
    """Returns the record for a file."""
    figures = ("absorption_fraction", "full_absorption", "splits")
    return {
      "version": 1,
      "name": self.name,
      "site": str(self.site),
      "width": self.width,
      "words": self.words,
      "verdict": self.verdict,
      "mean": {figure: self.mean(figure) for figure in figures},
      "letters": {
        name: dataclasses.asdict(letter)
        for name, letter in self.letters.items()
      },
    }


def measure_absorption(
  lm: Lm,
  saes: Mapping[str, tuple[Place, Sae]],
  words: int = 16_384,
  seed: int = 0,
) -> dict[str, AbsorptionResult]:
  """Measures how far latents of other features absorb first letters.

  The language model reads every word once, for all autoencoders.

  Args:
    lm: the language model, with its tokenizer.
    saes: name → site and autoencoder of raw activations, of sites that are both
      read and written.
    words: words to read, at most.
    seed: draws the words, their division and the examples before each.

  Raises:
    UserError: the model has no tokenizer, an autoencoder reads other sites
      than it writes, or there are too few words.
  """
  placed = {name: (Taps.of(at), sae) for name, (at, sae) in saes.items()}
  for name, (taps, _) in placed.items():
    taps.check(lm.config)
    if taps.transcodes:
      raise UserError(
        f"Autoencoder {name} reads other sites than it writes ({taps}), so its"
        " directions have no projection on a probe of what it reads; measure"
        " absorption on others."
      )
  spelled = _Words.draw(lm, words, np.random.default_rng(seed))
  vectors = pooled(lm, placed, spelled.rows, "last")
  probes = {reads: _probes(x, spelled) for reads, x in vectors.raw.items()}
  found = {}
  for name, (taps, sae) in placed.items():
    x, latents = vectors.raw[taps.reads], vectors.latents[name]
    letters = {
      letter: _of_letter(sae, x, latents, spelled, letter, *probe)
      for letter, probe in probes[taps.reads].items()
    }
    count = len(spelled.rows)
    found[name] = AbsorptionResult(
      name, saes[name][0], sae.width, count, letters
    )
  return found


@dataclasses.dataclass(frozen=True, eq=False)
class _Words:
  """Words at the end of their prompts.

  Attributes:
    rows: the token ids of each prompt.
    letters: [W], the first letter of each, in lower case.
    is_test: [W], whether each is held out.
  """

  rows: Sequence[Sequence[int]]
  letters: np.ndarray
  is_test: np.ndarray

  @classmethod
  def draw(cls, lm: Lm, most: int, rng: np.random.Generator) -> "_Words":
    if lm.tokenizer is None:
      raise UserError("Words are tokens of a tokenizer; give a model with one.")
    pieces = {
      i: text
      for i, text in enumerate(lm.tokenizer.pieces)
      if _WORD.fullmatch(text)
    }
    ids = rng.permutation(list(pieces))[:most]
    if len(ids) <= 2 * _EXAMPLES:
      raise UserError(
        f"{len(ids)} tokens are words of letters A to Z; absorption needs more."
      )
    words = [pieces[int(i)] for i in ids]
    is_test = np.arange(len(ids)) < _TEST_SHARE * len(ids)
    before = lm.tokenizer.encode(
      [
        _prompt(words, np.flatnonzero(is_test == is_test[i]), i, rng)
        for i in range(len(ids))
      ]
    )
    room = lm.config.context - 2
    rows = [
      (lm.tokenizer.bos, *some[-room:], int(i))
      for some, i in zip(before, ids, strict=True)
    ]
    letters = np.array([word.strip()[0].lower() for word in words])
    return cls(rows, letters, is_test)


def _prompt(
  words: Sequence[str], part: np.ndarray, own: int, rng: np.random.Generator
) -> str:
  """Spells other words of the same part, up to where the word comes."""
  drawn = rng.choice(part, min(_EXAMPLES + 1, len(part)), replace=False)
  examples = [str(words[i]) for i in drawn if i != own][:_EXAMPLES]
  lines = (
    f"{word} has the first letter: {word.strip()[0].upper()}"
    for word in examples
  )
  return "\n" + "\n".join(lines) + "\n"


Probe = tuple[logistic.Linear, float]  # of a letter, and its F1


def _probes(x: np.ndarray, words: _Words) -> dict[str, Probe]:
  """Fits a probe of each letter that has words enough, and measures its F1."""
  found = {}
  for letter in string.ascii_lowercase:
    is_own = words.letters == letter
    sizes = [np.sum(is_own & part) for part in (words.is_test, ~words.is_test)]
    if min(sizes) < _LEAST_WORDS:
      continue
    train = ~words.is_test
    probe = logistic.fit(x[train], is_own[train], balanced=True)
    says = probe.scores(x[words.is_test]) > 0
    found[letter] = probe, _f1(says, is_own[words.is_test])
  if not found:
    raise UserError(
      f"No letter begins {_LEAST_WORDS} held-out words of {len(words.rows)};"
      " read more words."
    )
  return found


def _of_letter(
  sae: Sae,
  x: np.ndarray,
  latents: sparse.csr_matrix,
  words: _Words,
  letter: str,
  probe: logistic.Linear,
  f1: float,
) -> Letter:
  if f1 <= _LEAST_F1:
    return Letter(f1)
  is_own = words.letters == letter
  main = _main_latents(latents, is_own, words.is_test)
  direction = probe.weights / np.linalg.norm(probe.weights)
  w_dec = np.asarray(sae.w_dec, np.float64)
  norms = np.maximum(np.linalg.norm(w_dec, axis=1), np.finfo(float).tiny)
  told = np.flatnonzero(is_own & words.is_test & (probe.scores(x) > 0))
  fractions, full = absorption(
    latents[told], x[told] @ direction, w_dec @ direction / norms, main
  )
  return Letter(
    probe_f1=f1,
    words=len(told),
    main=tuple(main),
    absorption_fraction=float(fractions.mean()),
    full_absorption=float(full.mean()),
  )


def _main_latents(
  latents: sparse.csr_matrix, is_own: np.ndarray, is_test: np.ndarray
) -> list[int]:
  """Returns the main latents: those that an L1 probe weighs most."""
  train = np.flatnonzero(~is_test)
  weights = logistic.fit_sparse(latents[train], is_own[train], _PENALTY)
  ranked = np.argsort(-weights, kind="stable")[:MOST_MAIN]
  few = latents[:, ranked].toarray()
  f1 = []
  for k in range(1, len(ranked) + 1):
    probe = logistic.fit(few[train][:, :k], is_own[train], balanced=True)
    says = probe.scores(few[is_test][:, :k]) > 0
    f1.append(_f1(says, is_own[is_test]))
    if main_count(f1) < k:
      break
  return ranked[: main_count(f1)].tolist()


def _f1(says: np.ndarray, is_own: np.ndarray) -> float:
  """Returns 2 · right / (said + true); 0 if there are none."""
  return float(
    2 * np.sum(says & is_own) / max(np.sum(says) + np.sum(is_own), 1)
  )
