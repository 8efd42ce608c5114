"""Our sites and models by their names in TransformerLens and Hugging Face."""

import re
from collections.abc import Mapping

from jaxsae.lm import Site, Taps
from jaxsae.lm.sites import HUGGING_FACE, PAIRS, TRANSFORMER_LENS
from jaxsae.lm.weights import SHIPPED

# What Gemma Scope's transcoders read: the MLP's input before the norm's gain.
BEFORE_GAIN = "blocks.{layer}.ln2.hook_normalized"

# Models here, and elsewhere, where a pretrained Gemma 2 may have no suffix.
_OURS = re.compile(r"gemma([23])-([0-9]+[bm])-(pt|it)")
_THEIRS = re.compile(r"(?:google/)?gemma-v?([23])-([0-9]+[bm])(?:-(pt|it))?")


def our_model(name: object) -> str | None:
  """Returns our name of a Gemma that others name; None for all else.

  A name that is ours already stays, for models that others do not name have it
  in their files too.
  """
  if not isinstance(name, str):
    return None
  if _OURS.fullmatch(name) or name in SHIPPED:
    return name
  found = _THEIRS.fullmatch(name)
  return f"gemma{found[1]}-{found[2]}-{found[3] or 'pt'}" if found else None


def their_model(name: str | None) -> str | None:
  """Returns the name of a Gemma in TransformerLens; all else stays."""
  found = _OURS.fullmatch(name or "")
  if not found:
    return name
  family, size, tuning = found.groups()
  plain = tuning == "pt" and (family == "2" or size == "270m")
  suffix = "" if plain else f"-{tuning}"
  return f"gemma-{family}-{size}{suffix}"


def hugging_face_model(name: str | None) -> str | None:
  """Returns the name of a Gemma at Hugging Face; all else stays."""
  theirs = their_model(name)
  return theirs if theirs == name else f"google/{theirs}"


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
