"""FLOPs of one update of an autoencoder."""


def update_flops_per_token(
  d_in: int, d: int, width: float, skip: bool = False
) -> float:
  """FLOPs that one update of one autoencoder takes per token.

  Two per weight for each product, as if latents were dense. The encoder has
  two products, forward and the gradient of its weights, because activations
  need no gradient; the decoder has three, because latents do. So the count is
  F (4 D_in + 6 D), or 10 D F where both widths are D, plus 4 D_in D for a
  transcoder's skip. Gemma Scope's paper (arXiv 2408.05147 §3.3) counts 6 per
  weight, which is 12 D F: also the gradient of activations.

  Not counted: elementwise operations, the penalty and the optimiser; what
  Gated and AuxK decode a second time; JumpReLU's diagnosis once per bucket.
  Prefixes take no product of their own.

  Args:
    d_in: D_in, the width of the site read.
    d: D, the width of the site written.
    width: F, the number of latents, or a device's share of them.
    skip: a transcoder adds an affine map of its input.
  """
  return width * (4 * d_in + 6 * d) + (4 * d_in * d if skip else 0)
