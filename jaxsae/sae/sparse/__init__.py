"""Updates of JumpReLU from the few token-latent pairs that they depend on.

Of the five products in an update only the encoder's needs every latent. The
derivative of JumpReLU is zero except at active latents, and that of its
threshold except inside the kernel (arXiv 2407.14435, equations 11-12). So with
L0 active latents the other four products take 8·N·D·L0 FLOPs, not 8·N·D·F.

This is written for CPUs, where a loop may end as soon as nothing is left to do,
and where fetching rows one by one is as fast as fetching many. No array of
shape [N, F] exists: the encoder takes some latents at a time, and keeps one bit
of each pre-activation until the pairs are collected.

Gradients are as large as the weights, zeros included, so any optimiser can use
them. An optimiser that skipped the zeros would save little: moments
decay for all latents anyway, and columns of W_enc are not contiguous in memory.
"""

from jaxsae.sae.sparse.chunk import chunk_size as chunk_size
from jaxsae.sae.sparse.forward import supports as supports
from jaxsae.sae.sparse.gradient import budget as budget
from jaxsae.sae.sparse.gradient import gradients as gradients
