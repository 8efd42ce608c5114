"""Where in Gemma's forward pass activations can be read and written."""

import contextlib
import dataclasses
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxsae.brief import brief
from jaxsae.errors import UserError
from jaxsae.lm.config import LmConfig
from jaxsae.renamed import tell_once

# The three sites of Gemma Scope (arXiv 2408.05147 §3.1) and the one that Gemma
# Scope 2's transcoders read; and what others call them: TransformerLens,
# Hugging Face, Gemma Scope's repositories.
WHERE = {
  "resid": "the residual stream after the block",
  "mlp": "the MLP's output after its post norm",
  "attn": "the heads' outputs, concatenated, before W_O",
  "mlp_in": "the MLP's input after its pre norm, gain included",
}
# Pairs of sites: the one that is read, and the one that is written.
PAIRS = {"transcoder": ("mlp_in", "mlp")}
_ORDER = ("attn", "mlp_in", "mlp", "resid")  # as a block computes them
TRANSFORMER_LENS = {
  "resid": "blocks.{layer}.hook_resid_post",
  "mlp": "blocks.{layer}.hook_mlp_out",
  "attn": "blocks.{layer}.attn.hook_z",
  # Of TransformerBridge. HookedTransformer has no name for it: what it calls
  # ln2.hook_normalized is before the gain, and hook_mlp_in before the norm.
  "mlp_in": "blocks.{layer}.mlp.hook_in",
}
HUGGING_FACE = {
  "resid": "model.layers.{layer}.output",
  "mlp": "model.layers.{layer}.post_feedforward_layernorm.output",
  "attn": "model.layers.{layer}.self_attn.o_proj.input",
  "mlp_in": "model.layers.{layer}.pre_feedforward_layernorm.output",
}
# Nothing was published at mlp_in alone. Of transcoders this is Gemma Scope 2's
# folder; the repository of the first is named in the plural.
GEMMA_SCOPE = {
  "resid": "res",
  "mlp": "mlp",
  "attn": "att",
  "transcoder": "transcoder",
}

_ALL = ", ".join(WHERE | PAIRS)
_ONE = r"[a-z_]+\.[0-9]{1,99}"  # a site
_MANY = rf"{_ONE}(\+{_ONE})*"  # one side of taps


@dataclasses.dataclass(frozen=True, order=True)
class Site:
  """One place in the forward pass, written `resid.12`; layers count from 0.

  Raises:
    UserError: there is no such kind of place, or the layer is not a whole
      number.
  """

  where: str
  layer: int

  def __new__(cls, where: str = "", layer: int = 0):
    """Makes a site; for one release, `transcoder` makes a transcoder's taps."""
    if isinstance(where, str) and where in PAIRS:
      tell_once("Site('transcoder', layer)", "Taps.transcoder(layer)")
      return Taps.of_pair(where, layer)
    return super().__new__(cls)

  def __post_init__(self):
    if not isinstance(self.where, str) or self.where not in WHERE:
      raise UserError(
        f"Unknown site {self.where!r}; use one of {_ALL}, as in resid.12."
      )
    object.__setattr__(self, "layer", _layer(self.where, self.layer))

  def __str__(self) -> str:
    return f"{self.where}.{self.layer}"

  @classmethod
  def parse(cls, text: str) -> "Site":
    """Parses `"resid.12"` as `Site("resid", 12)`."""
    return cls(*_split(text))

  def width(self, config: LmConfig) -> int:
    """Returns the length D of activations here."""
    return config.site_width(self.where)

  def check(self, config: LmConfig) -> None:
    """Raises UserError unless the model has this layer."""
    if not 0 <= self.layer < config.num_layers:
      raise UserError(
        f"Site {self} is out of range: the model has layers 0 to"
        f" {config.num_layers - 1}; name one of these, as in {self.where}.0."
      )

  @property
  def depth(self) -> tuple[int, int]:
    """Its place in the order in which a forward pass computes sites."""
    return self.layer, _ORDER.index(self.where)

  @property
  def number(self) -> int:
    """Its place in that order as one number, from 0."""
    layer, place = self.depth
    return len(_ORDER) * layer + place


@dataclasses.dataclass(frozen=True, order=True)
class Taps:
  """The sites that an autoencoder reads, and the sites that it writes.

  Activations of several sites are joined along their last axis, in this order.
  As text, `resid.12` stands for one site that is read and written, and
  `transcoder.12` for a transcoder, which reads `mlp_in.12` and writes `mlp.12`.
  Several sites are joined by `+`, and those that are read come before a colon
  if others are written: `resid.3+resid.4`, `mlp_in.3:mlp.3+mlp.4`.

  Raises:
    UserError: a side has no site, or has one twice, or something else.
  """

  reads: tuple[Site, ...]
  writes: tuple[Site, ...]

  def __post_init__(self):
    for side in ("reads", "writes"):
      sites = _sites(side, getattr(self, side))
      object.__setattr__(self, side, sites)
      if not sites or len(set(sites)) < len(sites):
        raise UserError(
          f"{side}={names(sites) or '()'} must name at least one site, and each"
          " once."
        )

  @classmethod
  def of(cls, place: "Place") -> "Taps":
    """Returns taps as they are, and of a site those that read and write it.

    Text, such as `"resid.12"`, is parsed.

    Raises:
      UserError: it is none of these, or text that names no site.
    """
    if isinstance(place, str):
      return cls.parse(place)
    if isinstance(place, Taps):
      return place
    if not isinstance(place, Site):
      raise UserError(
        f"{brief(place)} is not a site; give Site('resid', 12) or its text,"
        " and several sites one by one."
      )
    return cls((place,), (place,))

  @classmethod
  def of_pair(cls, kind: str, layer: int) -> "Taps":
    """Returns the taps of a pair in `PAIRS`, such as `"transcoder"`."""
    layer = _layer(kind, layer)
    read, written = PAIRS[kind]
    return cls((Site(read, layer),), (Site(written, layer),))

  @classmethod
  def transcoder(cls, layer: int) -> "Taps":
    """Returns the taps of a transcoder of a layer's MLP."""
    return cls.of_pair("transcoder", layer)

  @classmethod
  def parse(cls, text: str) -> "Taps":
    """Parses `"resid.12"`, `"transcoder.12"` or `"resid.3+resid.4"`."""
    if not _is_written(rf"{_MANY}(:{_MANY})?", text):
      raise _not_a_site(text)
    pair = next((k for k in PAIRS if f"{k}." in text), None)
    if pair and not re.fullmatch(_ONE, text):
      read, written = PAIRS[pair]
      raise UserError(
        f"{text!r} joins {pair} with others, and it is a pair of sites; write"
        f" {read}.LAYER for what is read and, after a colon, {written}.LAYER"
        f" for what is written, as in {read}.3:{written}.3+{written}.4."
      )
    reads, colon, writes = text.partition(":")
    if not colon and "+" not in text:
      where, layer = _split(text)
      if where in PAIRS:
        return cls.of_pair(where, layer)
    sites = tuple(map(Site.parse, reads.split("+")))
    if not colon:
      return cls(sites, sites)
    return cls(sites, tuple(map(Site.parse, writes.split("+"))))

  def __str__(self) -> str:
    if not self.transcodes:
      return names(self.reads)
    if self.kind in PAIRS:
      return f"{self.kind}.{self.reads[0].layer}"
    return f"{names(self.reads)}:{names(self.writes)}"

  @property
  def transcodes(self) -> bool:
    """True for a transcoder, which writes other sites than it reads."""
    return self.reads != self.writes

  @property
  def sites(self) -> tuple[Site, ...]:
    """The sites that are read or written, each once."""
    return tuple(dict.fromkeys(self.reads + self.writes))

  @property
  def site(self) -> Site:
    """The one site that is read and written.

    Raises:
      UserError: there are several.
    """
    if len(self.sites) > 1:
      raise UserError(
        f"{self} is not one site; read or edit"
        f" {' or '.join(map(str, self.sites))}, or put its autoencoder in their"
        " place with splice()."
      )
    return self.reads[0]

  @property
  def is_causal(self) -> bool:
    """True if all that is read is computed before the first site is written.

    A site that is both read and written is read before it is written.
    """
    last_read = max(site.depth for site in self.reads)
    return last_read <= min(site.depth for site in self.writes)

  @property
  def kind(self) -> str:
    """The kind of place, without layers: `resid`, `transcoder`, `resid+resid`.

    It is the name of a pair only if both sites are of one layer.
    """
    reads, writes = (
      "+".join(site.where for site in sites)
      for sites in (self.reads, self.writes)
    )
    if not self.transcodes:
      return reads
    layers = {site.layer for site in self.sites}
    pair = next((k for k, v in PAIRS.items() if v == (reads, writes)), None)
    return pair if pair and len(layers) == 1 else f"{reads}:{writes}"

  def d_in(self, config: LmConfig) -> int:
    """Returns D_in, the length of what is read."""
    return sum(site.width(config) for site in self.reads)

  def d(self, config: LmConfig) -> int:
    """Returns D, the length of what is written."""
    return sum(site.width(config) for site in self.writes)

  def check(self, config: LmConfig) -> None:
    """Raises UserError unless the model has these sites and can join them."""
    for site in self.sites:
      site.check(config)
    for sites in (self.reads, self.writes):
      widths = [site.width(config) for site in sites]
      if len(set(widths)) > 1:
        raise UserError(
          f"{names(sites)} have activations of widths"
          f" {', '.join(map(str, widths))}; an autoencoder joins only sites of"
          " one width."
        )

  def read(self, activations: Mapping[Site, jax.Array]) -> jax.Array:
    """Joins the activations that are read, [..., D_in]."""
    return join(activations, self.reads)

  def written(self, activations: Mapping[Site, jax.Array]) -> jax.Array:
    """Joins the activations that are written, [..., D]."""
    return join(activations, self.writes)

  @property
  def where(self) -> str:
    """`Site.where` of one release ago."""
    tell_once("where of an autoencoder's site", "Taps.kind")
    return self.kind

  @property
  def layer(self) -> int:
    """`Site.layer` of one release ago."""
    tell_once("layer of an autoencoder's site", "Taps.reads[0].layer")
    return self.reads[0].layer

  @property
  def input(self) -> Site:
    """`Site.input` of one release ago."""
    tell_once("Site.input", "Taps.reads")
    return self.reads[0]

  @property
  def output(self) -> Site:
    """`Site.output` of one release ago."""
    tell_once("Site.output", "Taps.writes")
    return self.writes[0]


# One site, or the sites of an autoencoder, or either of them as text.
Place = Site | Taps | str


def join(
  activations: Mapping[Site, jax.Array], sites: Sequence[Site]
) -> jax.Array:
  """Joins the activations of some sites along their last axis."""
  if len(sites) == 1:
    return activations[sites[0]]
  return jnp.concatenate([activations[site] for site in sites], axis=-1)


def names(sites: Sequence[Site]) -> str:
  """Returns sites as text, as in `resid.3+resid.4`."""
  return "+".join(map(str, sites))


def _layer(where: str, layer: Any) -> int:
  """Returns a layer as an int; raises UserError if it cannot be one."""
  with contextlib.suppress(TypeError):
    if not isinstance(layer, bool):
      return operator.index(layer)
  raise UserError(
    f"Layer {brief(layer)} of {where} is not a whole number; count layers from"
    f" 0, as in {where}.12."
  )


def _sites(side: str, given: Any) -> tuple[Site, ...]:
  """Returns one side of taps; raises UserError if it is not made of sites."""
  if isinstance(given, str):
    given = given.split("+")
  if isinstance(given, Site):
    given = (given,)
  if not isinstance(given, list | tuple):
    raise UserError(
      f"{side}={brief(given)} is not a tuple of sites; give (Site('resid', 3),)"
      " or the text resid.3."
    )
  return tuple(x if isinstance(x, Site) else Taps.of(x).site for x in given)


def _split(text: str) -> tuple[str, int]:
  if not _is_written(_ONE, text):
    raise _not_a_site(text)
  where, layer = text.split(".")
  return where, int(layer)


def _is_written(pattern: str, text: Any) -> bool:
  return isinstance(text, str) and bool(re.fullmatch(pattern, text))


def _not_a_site(text: str) -> UserError:
  return UserError(
    f"{text!r} is not a site; write where.layer, as in resid.12"
    f" (where is one of {_ALL}), and several with + and without spaces."
  )
