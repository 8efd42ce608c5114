"""Steps compiled for a mesh and placement, without any arrays."""

import dataclasses

import jax.numpy as jnp

from jaxsae.data import DataConfig
from jaxsae.lm import GemmaConfig, Site
from jaxsae.plan import hlo
from jaxsae.train.config.run import BucketConfig, SweepConfig, TrainConfig
from jaxsae.train.placement.select import bucket_dtype, choose_placements
from jaxsae.train.sources.text import abstract_arguments
from tests.train.toys import compile_step

GEMMA = GemmaConfig(
  vocab_size=256,
  num_layers=1,
  embed_dim=256,
  hidden_dim=256,
  num_heads=8,
  num_kv_heads=8,
  head_dim=32,
  query_pre_attn_scalar=32,
)


# Kinds of autoencoders that send more than the plain ones in an update.
KINDS = {
  "jumprelu": {},
  "matryoshka": {"prefixes": (1 / 32, 3 / 32, 7 / 32, 15 / 32)},
  "ragged": {"prefixes": (0.1, 0.3)},  # no number of devices divides these
  "few": {"sites": (Site("resid", 0),)},
  "topk": {
    "architecture": "topk",
    "target_l0": (8, 12, 16, 24),
    "sparsity_coefficient": (1.0,),
    "wake_after": 10_000,
  },
}


def config(placement: str, data: int, kind: str = "jumprelu") -> TrainConfig:
  """Two stacks of four autoencoders; 16 tokens an update on each device."""
  return TrainConfig(
    data=DataConfig(context=64),
    sae=dataclasses.replace(
      SweepConfig(
        sites=(Site("resid", 0), Site("mlp", 0)),
        widths=(2048,),
        sparsity_coefficient=(1e-4, 2e-4, 4e-4, 8e-4),
        placement=placement,
      ),
      **KINDS[kind],
    ),
    bucket=BucketConfig(
      microbatches=2, rows=8 * data, update_tokens=256 * data
    ),
  )


def compiled(
  placement: str, mesh, dtype=jnp.bfloat16, kind: str = "jumprelu"
) -> dict:
  """Returns what one update sends, and its prediction, by kind of collective.

  On a CPU with float32 only: there, what is gathered of bfloat16 is first made
  float32.
  """
  settings = config(placement, mesh.shape["data"], kind)
  arguments = abstract_arguments(settings, GEMMA, mesh, dtype)
  state, lm, _ = arguments
  (choice,) = choose_placements(
    settings.stacks,
    settings.schedule,
    mesh,
    state.stacks,
    bucket_dtype(settings, lm),
  )
  text = compile_step(settings, mesh, *arguments).as_text()
  time, updates = choice.time, settings.updates_per_bucket
  return {
    "sent": hlo.total(hlo.in_updates(text)),
    "outside": hlo.total(hlo.outside(text)),
    "predicted": time.sent - time.moved / updates,
    "moved": time.moved,
  }
