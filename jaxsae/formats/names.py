"""Our sites and models by their names in TransformerLens and Hugging Face."""

import re
from collections.abc import Mapping

from jaxsae.lm import Site, Taps
from jaxsae.lm.sites import HUGGING_FACE, PAIRS, TRANSFORMER_LENS

# What Gemma Scope's transcoders read: the MLP's input before the norm's gain.
BEFORE_GAIN = "blocks.{layer}.ln2.hook_normalized"

# Gemma 2's names here, and elsewhere.
_OURS = re.compile(r"gemma2-(2b|9b|27b)-(pt|it)")
_ANY_OF_OURS = re.compile(r"gemma[23]-([0-9]+[bm]-(pt|it)|tiny)")
_THEIRS = re.compile(r"(?:google/)?gemma-2-(2b|9b|27b)(-it)?")


def our_model(name: object) -> str | None:
  """Returns our name of a Gemma 2 that others name; None for all else.

  A name that is ours already stays, for we write those of other models so.
  """
  if isinstance(name, str) and _ANY_OF_OURS.fullmatch(name):
    return name
  found = _THEIRS.fullmatch(name) if isinstance(name, str) else None
  return f"gemma2-{found[1]}-{'it' if found[2] else 'pt'}" if found else None


def their_model(name: str | None) -> str | None:
  """Returns TransformerLens' name of a Gemma 2; all else stays."""
  found = _OURS.fullmatch(name or "")
  tuned = "-it" if found and found[2] == "it" else ""
  return f"gemma-2-{found[1]}{tuned}" if found else name


def site_of(name: object) -> Site | None:
  """Returns the site of a hook's name; None if it is none of ours."""
  for names in (TRANSFORMER_LENS, HUGGING_FACE):
    for where, pattern in names.items():
      if (layer := _layer(pattern, name)) is not None:
        return Site(where, layer)
  return None


def taps_of(read: object, written: object = None) -> Taps | None:
  """Returns the taps of two hooks' names, one if both are the same.

  What is read before the gain of the MLP's norm becomes `mlp_in`.
  """
  site, layer = site_of(read), _layer(BEFORE_GAIN, read)
  if site is None and layer is not None:
    site = Site(PAIRS["transcoder"][0], layer)
  other = site if written is None else site_of(written)
  if site is None or other is None:
    return None
  return Taps((site,), (other,))


def is_before_gain(read: object) -> bool:
  """Returns whether a hook is the MLP's input before the gain of its norm."""
  return _layer(BEFORE_GAIN, read) is not None


def name_of(site: Site, names: Mapping[str, str] = TRANSFORMER_LENS) -> str:
  """Returns the name of a site's hook, by default in TransformerLens."""
  return names[site.where].format(layer=site.layer)


def _layer(pattern: str, name: object) -> int | None:
  before, after = map(re.escape, pattern.split("{layer}"))
  if not isinstance(name, str):
    return None
  found = re.fullmatch(f"{before}([0-9]{{1,4}}){after}", name)
  return int(found[1]) if found else None
