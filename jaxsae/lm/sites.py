"""Where in Gemma's forward pass activations can be read and written."""

import dataclasses
import re

from jaxsae.errors import UserError
from jaxsae.lm.config import LmConfig

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


@dataclasses.dataclass(frozen=True, order=True)
class Site:
  """One place in the forward pass, written `resid.12`; layers count from 0.

  Or a pair: a transcoder at `transcoder.12` reads `mlp_in.12` and writes
  `mlp.12`. An autoencoder's `input` and `output` are its site itself.
  """

  where: str
  layer: int

  def __post_init__(self):
    if self.where not in WHERE | PAIRS:
      raise UserError(
        f"Unknown site {self.where!r}; use one of {_ALL}, as in resid.12."
      )

  def __str__(self) -> str:
    return f"{self.where}.{self.layer}"

  @classmethod
  def parse(cls, text: str) -> "Site":
    """Parses `"resid.12"` as `Site("resid", 12)`."""
    match = re.fullmatch(r"([a-z_]+)\.(\d+)", text)
    if not match:
      raise UserError(
        f"{text!r} is not a site; write where.layer, as in resid.12"
        f" (where is one of {_ALL})."
      )
    return cls(match[1], int(match[2]))

  @property
  def input(self) -> "Site":
    """The site that an autoencoder here reads."""
    where, _ = PAIRS.get(self.where, (self.where, self.where))
    return Site(where, self.layer)

  @property
  def output(self) -> "Site":
    """The site that an autoencoder here writes."""
    _, where = PAIRS.get(self.where, (self.where, self.where))
    return Site(where, self.layer)

  def width(self, config: LmConfig) -> int:
    """Returns the length D of activations here; of the output, for a pair."""
    return config.site_width(self.where)

  def check(self, config: LmConfig) -> None:
    """Raises UserError unless the model has this layer."""
    if not 0 <= self.layer < config.num_layers:
      raise UserError(
        f"Site {self} is out of range: the model has layers 0 to"
        f" {config.num_layers - 1}."
      )
