"""Growth of an update's time with the width and with the size of the stack.

  python -m experiments.benchmarks.scaling

Loss, gradients, optimiser and the count of idle latents, for 1,024 tokens of
D = 256 in float32 on this machine's CPU, with about 64 active latents. GFLOP/s
counts 10·N·D·F FLOPs per autoencoder; the limit is the rate of a plain product
of the same sizes. The exponent is the least-squares slope in logarithms; 1
means that time is proportional to the number.
"""

import statistics

import numpy as np

from experiments.benchmarks import product, table, turns, update

TOKENS, DEPTH = 1024, 256
WIDTHS = [2**n for n in range(12, 19)]  # 4,096 … 262,144
SIZES, STACKED = [1, 2, 4, 8, 16], 4096


def main(widths=WIDTHS, sizes=SIZES, stacked=STACKED, rounds=turns.TURNS):
  measure("width", widths, [(width, 1) for width in widths], rounds)
  print()
  stacks = [(stacked, size) for size in sizes]
  measure("autoencoders", sizes, stacks, rounds)


def measure(what, numbers, cases, rounds):
  """Prints a table with a line for each (width, size), and the exponent."""
  x = update.inputs(TOKENS, DEPTH)
  ours = [
    update.turn(update.start(x, width, trained=True, size=size), x)
    for width, size in cases
  ]
  limits = [product.turn(TOKENS, DEPTH, width) for width, _ in cases]
  times = turns.take([*ours, *limits], rounds)
  seconds = [statistics.median(t) for t in times[: len(cases)]]
  table.head(what, "µs per token", "GFLOP/s", "limit", "share")
  for number, case, mine, limit in zip(
    numbers, cases, seconds, times[len(cases) :], strict=True
  ):
    line(number, case, mine, min(limit))
  power = exponent(numbers, seconds)
  print(f"\nTime grows as the number to the power {power:.2f}.")


def line(number, case, seconds, limit):
  width, size = case
  flops = product.flops(TOKENS, DEPTH, width) / 1e9
  rate, most = product.IN_AN_UPDATE * size * flops / seconds, flops / limit
  table.row(
    number,
    f"{1e6 * seconds / TOKENS:.1f}",
    f"{rate:.0f}",
    f"{most:.0f}",
    f"{rate / most:.0%}",
  )


def exponent(x, y) -> float:
  """Fits y ∝ x^p by least squares and returns p."""
  return float(np.polyfit(np.log(x), np.log(y), 1)[0])


if __name__ == "__main__":
  main()
