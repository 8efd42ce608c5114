"""Where in Gemma's forward pass activations can be read and written."""

import dataclasses
import re

from jaxsae.errors import UserError
from jaxsae.lm.config import GemmaConfig

# The three sites of Gemma Scope (arXiv 2408.05147 §3.1), and what others call
# them: TransformerLens, Hugging Face, Gemma Scope's repositories.
WHERE = {
  "resid": "the residual stream after the block",
  "mlp": "the MLP's output after its post norm",
  "attn": "the heads' outputs, concatenated, before W_O",
}
TRANSFORMER_LENS = {
  "resid": "blocks.{layer}.hook_resid_post",
  "mlp": "blocks.{layer}.hook_mlp_out",
  "attn": "blocks.{layer}.attn.hook_z",
}
HUGGING_FACE = {
  "resid": "model.layers.{layer}.output",
  "mlp": "model.layers.{layer}.post_feedforward_layernorm.output",
  "attn": "model.layers.{layer}.self_attn.o_proj.input",
}
GEMMA_SCOPE = {"resid": "res", "mlp": "mlp", "attn": "att"}


@dataclasses.dataclass(frozen=True, order=True)
class Site:
  """One place in the forward pass, written `resid.12`; layers count from 0."""

  where: str
  layer: int

  def __post_init__(self):
    if self.where not in WHERE:
      raise UserError(
        f"Unknown site {self.where!r}; use one of {', '.join(WHERE)},"
        " as in resid.12."
      )

  def __str__(self) -> str:
    return f"{self.where}.{self.layer}"

  @classmethod
  def parse(cls, text: str) -> "Site":
    """`"resid.12"` → `Site("resid", 12)`."""
    match = re.fullmatch(r"([a-z]+)\.(\d+)", text)
    if not match:
      raise UserError(
        f"{text!r} is not a site; write where.layer, as in resid.12"
        f" (where is one of {', '.join(WHERE)})."
      )
    return cls(match[1], int(match[2]))

  def width(self, config: GemmaConfig) -> int:
    """Length D of this site's activation vectors."""
    if self.where == "attn":
      return config.num_heads * config.head_dim
    return config.embed_dim

  def check(self, config: GemmaConfig) -> None:
    """Raises UserError unless the model has this layer."""
    if not 0 <= self.layer < config.num_layers:
      raise UserError(
        f"Site {self} is out of range: the model has layers 0 to"
        f" {config.num_layers - 1}."
      )
