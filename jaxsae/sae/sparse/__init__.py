"""An update from the few pairs of tokens and latents that it depends on.

Of the five products of an update only the encoder's needs every latent. The
derivative of JumpReLU is zero but at active latents, and that of its threshold
but inside the kernel (arXiv 2407.14435, equations 11-12), so with L0 active
latents the other four cost 8·N·D·L0 instead of 8·N·D·F.

Written for CPUs, where loops may end when there is nothing left to do and rows
are fetched one by one as fast as many. What has the shape [N, F] never exists:
the encoder takes some latents at a time, and of their pre-activations it keeps
one bit each until the pairs are read off.

Gradients are as large as weights, with zeros, for any optimiser. One that
touched no other rows would save little: moments decay for all latents anyway,
and the columns of W_enc lie apart in memory.
"""

from jaxsae.sae.sparse.chunk import chunk_size as chunk_size
from jaxsae.sae.sparse.forward import supports as supports
from jaxsae.sae.sparse.gradient import budget as budget
from jaxsae.sae.sparse.gradient import gradients as gradients
