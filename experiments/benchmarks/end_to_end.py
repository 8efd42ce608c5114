"""Training from tokens to updates: ours beside SAELens'.

  pip install "jaxsae[test]"  # with Python 3.11
  python -m experiments.benchmarks.end_to_end

One autoencoder at resid.3 of the small Gemma 2, in float32 on this machine's
CPU. SAELens' side is its LanguageModelSAETrainingRunner on Hugging Face's
Gemma 2 with the same weights; that both models have the same activations is
checked first. Both sides have rows of 256 tokens, forward passes of 8 rows, a
shuffle over 32,768 tokens, and the same initial weights, penalty and rates. A
turn is 32,768 tokens, from rows of tokens to the last update; loading,
compiling and the first turn, in which buffers fill, are not timed. L0 is that
of the last bucket (ours) or update (SAELens') and still approaches 32.
"""

import dataclasses
import pathlib
import statistics
import tempfile

from experiments.benchmarks import table, turns
from experiments.benchmarks.ours import Training
from experiments.benchmarks.saelens import SingleTraining
from experiments.benchmarks.settings import Settings

SETTINGS = Settings()
SHAPES = [(2048, 1024), (2048, 4096), (16_384, 4096)]  # width, update tokens


def main(settings=SETTINGS, shapes=SHAPES, rounds=turns.TURNS):
  table.head(
    *("width", "tokens per update", "ours tokens/s", "SAELens tokens/s"),
    *("ratio", "our L0", "SAELens' L0"),
  )
  for width, update_tokens in shapes:
    shape = {"width": width, "update_tokens": update_tokens}
    measure(dataclasses.replace(settings, **shape), rounds)


def measure(settings, rounds):
  """Prints the table's line for one width and number of tokens per update."""
  ours = Training(settings)
  with tempfile.TemporaryDirectory() as folder:
    theirs = SingleTraining(ours, pathlib.Path(folder) / "lm")
  mine, other = turns.take((ours.turn, theirs.turn), rounds)
  rate = lambda times: settings.bucket_tokens / statistics.median(times)
  table.row(
    settings.width,
    settings.update_tokens,
    f"{rate(mine):.0f}",
    f"{rate(other):.0f}",
    f"{turns.ratio(other, mine):.2f}",
    f"{ours.l0[0]:.0f}",
    f"{theirs.l0[0]:.0f}",
  )


if __name__ == "__main__":
  main()
