"""Sparse autoencoders on Gemma 2 and 3, trained under one JAX mesh."""

from jaxsae.errors import ended_by_ctrl_c
from jaxsae.renamed import forward

with ended_by_ctrl_c():
  from jaxsae.formats import load_sae as load_sae
  from jaxsae.formats import load_saes as load_saes
  from jaxsae.lm import Ablate as Ablate
  from jaxsae.lm import Clamp as Clamp
  from jaxsae.lm import Lm as Lm
  from jaxsae.lm import Patch as Patch
  from jaxsae.lm import Site as Site
  from jaxsae.lm import Splice as Splice
  from jaxsae.lm import Steer as Steer
  from jaxsae.lm import Taps as Taps
  from jaxsae.lm import capture as capture
  from jaxsae.lm import chat_prompt as chat_prompt
  from jaxsae.lm import edit as edit
  from jaxsae.lm import generate as generate
  from jaxsae.lm import load_lm as load_lm
  from jaxsae.lm import splice as splice
  from jaxsae.sae import Sae as Sae
  from jaxsae.token_batch import TokenBatch as TokenBatch

__getattr__ = forward(__name__, {"export": "jaxsae.formats"})
