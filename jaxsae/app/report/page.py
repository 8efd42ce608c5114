"""A report as one HTML page that works offline.

Shapes: F latents, K contexts of a latent, W tokens of a context.
"""

import base64
import gzip
import json
import math
import os
import pathlib
import re

import markupsafe
import numpy as np

from jaxsae.app.axes import FRAME, linear_axis, log_axis
from jaxsae.app.pages import content_hash, number, template
from jaxsae.errors import UserError
from jaxsae.explore.characters import with_characters
from jaxsae.explore.report import Report, SaeReport
from jaxsae.files import given_path, whole_file

_HERE = pathlib.Path(__file__).parent
# What differs along a line of a plot: the sparsity in an autoencoder's name.
_SPARSITY = re.compile(r"\b(l0|lambda)_[^_/]+")


def write(report: Report, path: str | os.PathLike) -> None:
  """Writes a report's page to `path`, atomically, and makes its folders.

  Raises:
    UserError: the file cannot be written there.
  """
  path = given_path(path)
  # A title may hold half a surrogate pair, which UTF-8 cannot express.
  page = render(report).encode("utf-8", "xmlcharrefreplace")
  try:
    with whole_file(path) as partial:
      partial.write_bytes(page)
  except OSError as error:
    raise UserError(
      f"the report cannot be written to {path} ({error.strerror}); give a file"
      " in a folder that has room and that you may write to"
    ) from error


def render(report: Report) -> str:
  """Renders the page as HTML with style, script and data, and no outside links.

  Each autoencoder is one gzipped block that the browser unpacks when it is
  first shown. The content security policy allows only this style and script.
  """
  report = with_characters(report)
  style = (_HERE / "report.css").read_text("utf-8")
  script = (_HERE / "report.js").read_text("utf-8")
  index, blocks = _pack(report)
  return template(_HERE / "report.html").render(
    report=report,
    sites=_sites(report),
    widths=_widths(report),
    plots={name: _plot(report, name) for name in ("fvu", "delta_loss")},
    style=markupsafe.Markup(style),
    style_hash=content_hash(style),
    script=markupsafe.Markup(script),
    script_hash=content_hash(script),
    index=_json_in_html(index),
    blocks=blocks,
  )


def _json_in_html(value) -> markupsafe.Markup:
  """Writes ASCII JSON that no HTML parser can mistake for markup."""
  text = json.dumps(value, allow_nan=False, separators=(",", ":"))
  for character in "<>&":
    text = text.replace(character, f"\\u{ord(character):04x}")
  return markupsafe.Markup(text)


def _sites(report: Report) -> list[str]:
  return list(dict.fromkeys(sae.site for sae in report.saes))


def _widths(report: Report) -> list[int]:
  return sorted({sae.width for sae in report.saes})


def _plot(report: Report, metric: str) -> dict:
  """Plots a metric against L0: lines and ticks, in the pixels of FRAME.

  A line joins autoencoders that differ in nothing but their sparsity.
  """
  shown = [
    sae
    for sae in report.saes
    if sae.metrics["l0"] > 0 and math.isfinite(sae.metrics[metric])
  ]
  x, x_ticks = log_axis([sae.metrics["l0"] for sae in shown])
  y, y_ticks = linear_axis([sae.metrics[metric] for sae in shown])
  sites, widths = _sites(report), _widths(report)
  lines = {}
  for sae in sorted(shown, key=lambda sae: sae.metrics["l0"]):
    of = sites.index(sae.site), widths.index(sae.width)
    point = round(x(sae.metrics["l0"])), round(y(sae.metrics[metric])), sae.name
    lines.setdefault((*of, _SPARSITY.sub("", sae.name)), []).append(point)
  return {
    "frame": FRAME,
    "lines": [(*of, points) for (*of, _), points in sorted(lines.items())],
    "x_ticks": [(round(x(tick)), f"{tick:g}") for tick in x_ticks],
    "y_ticks": [(round(y(tick)), number(tick, ".3g")) for tick in y_ticks],
  }


def _pack(report: Report) -> tuple[dict, list[str]]:
  """Packs the index that the page reads first, and a block per autoencoder.

  Only the tokens and documents that the page shows are kept, with new numbers;
  the number after the last one means "none".
  """
  tokens = _used(
    ids
    for sae in report.saes
    for ids in (sae.contexts.tokens, sae.promoted, sae.suppressed)
  )
  documents = _used(sae.contexts.document for sae in report.saes)
  packed = [_block(_arrays(s, tokens, documents)) for s in report.saes]
  index = {
    "vocabulary": [report.vocabulary[i] for i in tokens],
    "documents": [report.documents[i] for i in documents],
    "saes": [
      {
        "name": sae.name,
        "layout": layout,
        "load": sae.load,
        "measured": sae.metrics["tokens"],
      }
      for sae, (layout, _) in zip(report.saes, packed, strict=True)
    ],
  }
  return index, [block for _, block in packed]


def _used(arrays) -> np.ndarray:
  used = np.unique(np.concatenate([np.unique(ids) for ids in arrays]))
  return used[used >= 0]


def _arrays(
  sae: SaeReport, tokens: np.ndarray, documents: np.ndarray
) -> dict[str, np.ndarray]:
  """The arrays of one block, under their names in report.js."""
  contexts = sae.contexts
  scale = contexts.activations.max(axis=(1, 2), initial=0)
  return {
    "density": sae.density.astype("f4"),
    "maximum": sae.max_activation.astype("f4"),
    "histogram": _smallest(sae.histogram),
    "tokens": _renumber(contexts.tokens, tokens),
    "activations": _quantise(contexts.activations, scale),
    "scale": scale.astype("f4"),
    "peak": _smallest(contexts.peak),
    "position": _smallest(contexts.position),
    "document": _renumber(contexts.document, documents),
    "count": _smallest(contexts.count),
    "top": _smallest(contexts.top),
    "promoted": _renumber(sae.promoted, tokens),
    "promotedValues": _rounded(sae.promoted_values),
    "suppressed": _renumber(sae.suppressed, tokens),
    "suppressedValues": _rounded(sae.suppressed_values),
    "neighbours": _renumber(sae.neighbours, np.arange(sae.width)),
    "cosines": _rounded(sae.neighbour_cosines),
  }


def _renumber(ids: np.ndarray, used: np.ndarray) -> np.ndarray:
  none = len(used)
  numbers = np.where(ids < 0, none, np.searchsorted(used, ids))
  return numbers.astype(np.min_scalar_type(none))


def _smallest(counts: np.ndarray) -> np.ndarray:
  """Converts whole numbers to the narrowest unsigned type that holds them."""
  counts = np.maximum(counts, 0)  # missing contexts may hold -1
  return counts.astype(np.min_scalar_type(counts.max(initial=0)))


def _quantise(activations: np.ndarray, scale: np.ndarray) -> np.ndarray:
  """Quantises to 1/255 of each latent's scale; what fires never becomes 0."""
  shares = activations / np.where(scale > 0, scale, 1)[:, None, None]
  steps = np.maximum(np.rint(255 * shares), 1)
  return np.where(shares > 0, steps, 0).astype("u1")


def _rounded(values: np.ndarray) -> np.ndarray:
  """Rounds down to 11 significant bits, as displayed; gzip then halves them."""
  bits = values.astype("f4").view("u4")
  return (bits & np.uint32(0xFFFFE000)).view("f4")


def _block(arrays: dict[str, np.ndarray]) -> tuple[dict, str]:
  """Returns the layout of arrays, and the arrays gzipped, in base64.

  The layout maps a name to [type, first byte, shape].
  """
  layout, parts, offset = {}, [], 0
  # Widest first, so that every array starts at a multiple of its item size.
  for name, array in sorted(arrays.items(), key=lambda x: -x[1].itemsize):
    array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
    layout[name] = [f"{array.dtype.kind}{array.itemsize}", offset, array.shape]
    parts.append(array.tobytes())
    offset += array.nbytes
  packed = gzip.compress(b"".join(parts), compresslevel=6, mtime=0)
  return layout, base64.b64encode(packed).decode()
