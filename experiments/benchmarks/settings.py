"""Settings that both sides of a comparison of whole runs share."""

import dataclasses

from jaxsae.lm import Site


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of a sweep on the small Gemma 2: sites × targets of L0.

  The recipe is the quickstart's; nothing is evaluated or saved.
  """

  sites: tuple[Site, ...] = (Site("resid", 3),)
  targets: tuple[float, ...] = (32.0,)  # of L0
  width: int = 2048  # latents
  update_tokens: int = 1024  # tokens per update
  lm: str = "gemma2-tiny"
  source: str = "python-stdlib"
  cache: str = "~/.cache/jaxsae"  # of the tokenised text
  context: int = 256  # tokens in a row
  rows: int = 8  # in one forward pass; 32 is faster for neither side
  microbatches: int = 16  # forward passes whose activations are shuffled
  sparsity_coefficient: float = 0.05  # λ, of the quadratic penalty
  sparsity_warmup: int = 200  # updates
  bandwidth: float = 0.01  # ε
  threshold: float = 0.1  # θ at the start
  lr: float = 2e-3
  lr_warmup: int = 50  # updates
  b2: float = 0.99  # of Adam; b1 is 0

  @property
  def bucket_rows(self) -> int:
    """Number of rows per bucket."""
    return self.rows * self.microbatches

  @property
  def bucket_tokens(self) -> int:
    """Number of tokens per bucket."""
    return self.bucket_rows * self.context

  @property
  def updates(self) -> int:
    """Number of updates per bucket."""
    return self.bucket_tokens // self.update_tokens
