"""The figures of autoencoders as one HTML page, without a script.

It is made of the records that `evals.write` writes, which are not trusted.
"""

import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import markupsafe

from jaxsae.app.axes import FRAME, linear_axis, log_axis
from jaxsae.app.pages import content_hash, number, template
from jaxsae.evals import DEFINITIONS
from jaxsae.files import given_path, refusals_told, whole_file

_HERE = pathlib.Path(__file__).parent

Record = Mapping[str, Any]

# What is plotted against L0, with its name; lower is better.
_PLOTS = {"fvu": "FVU", "delta_loss": "Delta loss, nats"}
_COLOURS = 6

# The columns of the table: figure, head and format.
_COLUMNS = (
  ("l0", "L0", ".1f"),
  ("fvu", "FVU", ".3f"),
  ("delta_loss", "Delta loss", ".4f"),
  ("kl", "KL", ".4f"),
  ("loss_recovered_zero", "Recovered (zero)", ".3f"),
  ("loss_recovered_mean", "Recovered (mean)", ".3f"),
  ("cosine", "Cosine", ".3f"),
  ("norm_ratio", "Norm ratio", ".3f"),
  ("dead", "Dead", ".1%"),
  ("density_above_10_percent", "Above 10 %", ".1%"),
  ("interference", "Interference", ".3f"),
)


def write(
  sets: Mapping[str, Sequence[Record]], path: str | os.PathLike[str]
) -> None:
  """Writes the page of some sets of records, atomically.

  Args:
    sets: name of a set, such as a run's folder → its records. Those of one set
      and site have one colour.
    path: the file; its folders are made.

  Raises:
    UserError: the file cannot be written there.
  """
  page = render(sets).encode("utf-8", "xmlcharrefreplace")
  with refusals_told(path), whole_file(given_path(path)) as partial:
    partial.write_bytes(page)


def render(sets: Mapping[str, Sequence[Record]]) -> str:
  """Returns the page of some sets of records as HTML."""
  shown = {figure for figure, _, _ in _COLUMNS}
  style = (_HERE / "evaluation.css").read_text("utf-8")
  return template(_HERE / "evaluation.html").render(
    style=markupsafe.Markup(style),
    style_hash=content_hash(style),
    sets=sets,
    series=_series(sets),
    colours=_COLOURS,
    plots=[_plot(sets, figure, name) for figure, name in _PLOTS.items()],
    columns=_COLUMNS,
    definitions={k: x for k, x in DEFINITIONS.items() if k in shown},
    controls=DEFINITIONS["controls"],
  )


def _plot(
  sets: Mapping[str, Sequence[Record]], figure: str, name: str
) -> dict[str, Any]:
  """Returns points, intervals and ticks of a figure against L0, in pixels."""
  colour = {one: i % _COLOURS for i, one in enumerate(_series(sets))}
  points = [
    (colour[name_of_set, _site(record)], record)
    for name_of_set, records in sets.items()
    for record in records
    if _has(record, figure)
  ]
  controls = _controls(points)
  drawn = [record for _, record in (*points, *controls)]
  x, x_ticks = log_axis([record["l0"] for record in drawn])
  # Controls may be far worse than all else; what is above is at the upper edge.
  highest = 1.6 * max((_upper(r, figure) for _, r in points), default=1)
  y_of = {id(r): min(r[figure], highest) for r in drawn}
  ends = [min(_upper(r, figure), highest) for _, r in points]
  y, y_ticks = linear_axis([*y_of.values(), *ends])
  at = lambda record: (round(x(record["l0"]), 1), round(y(y_of[id(record)]), 1))
  return {
    "name": name,
    "frame": FRAME,
    "x_ticks": [(round(x(tick)), f"{tick:g}") for tick in x_ticks],
    "y_ticks": [(round(y(tick)), number(tick, ".3g")) for tick in y_ticks],
    "controls": [
      (*at(r), of, f"{r['kind']}\nL0 {r['l0']:.1f} · {name} {r[figure]:.3f}")
      for of, r in controls
    ],
    "points": [
      {
        "at": at(record),
        "colour": its_colour,
        "ends": [round(y(end), 1) for end in _ends(record, figure)],
        "tip": f"{record['name']}\nL0 {record['l0']:.1f} · {name}"
        f" {record[figure]:.3f}",
      }
      for its_colour, record in points
    ],
  }


def _series(sets: Mapping[str, Sequence[Record]]) -> list[tuple[str, str]]:
  """Returns the sites of each set, which have one colour each."""
  every = ((name, _site(x)) for name, some in sets.items() for x in some)
  return list(dict.fromkeys(every))


def _site(record: Record) -> str:
  return str(record.get("site", ""))


def _controls(points: Iterable[tuple[int, Record]]) -> list[tuple[int, Record]]:
  """Returns the colour of each control once, and it with its kind."""
  found = {
    (kind, one["l0"], one["fvu"], one["delta_loss"]): (
      colour,
      {**one, "kind": kind},
    )
    for colour, record in points
    for kind, one in record.get("controls", {}).items()
    if _has(one, "fvu") and _has(one, "delta_loss")
  }
  return list(found.values())


def _has(record: Record, figure: str) -> bool:
  return (record.get("l0") or 0) > 0 and record.get(figure) is not None


def _ends(record: Record, figure: str) -> list[float]:
  """Returns the ends of an interval; none where there is no interval."""
  ends = record.get("intervals", {}).get(figure) or ()
  return [end for end in ends if end is not None and math.isfinite(end)]


def _upper(record: Record, figure: str) -> float:
  return max([record[figure], *_ends(record, figure)])
