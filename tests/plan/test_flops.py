"""Operations: the plan's, counted again here, and counted by the compiler."""

import math

import pytest

from jaxsae import mesh as meshes
from jaxsae.data import DataConfig
from jaxsae.lm import GemmaConfig, Site
from jaxsae.lm.config import PUBLISHED
from jaxsae.mesh import MeshConfig
from jaxsae.plan import plan as plans
from jaxsae.plan.topology import parse
from jaxsae.train.config import presets
from jaxsae.train.config.run import BucketConfig, SweepConfig, TrainConfig
from jaxsae.train.step import abstract_arguments
from tests.train.toys import compile_step

pytestmark = pytest.mark.slow

SLICES = parse("v5e:2x4")
GEMMA = GemmaConfig(
  vocab_size=256,
  num_layers=3,
  embed_dim=256,
  hidden_dim=1024,
  num_heads=4,
  num_kv_heads=2,
  head_dim=64,
  query_pre_attn_scalar=64,
)


def planned(config, gemma):
  mesh = meshes.make(config.mesh)
  return plans.on_mesh(config, gemma, mesh, SLICES, compiles=False)


@pytest.mark.parametrize("name", ["gemma2-2b", "gemma2-9b", "gemma2-27b"])
def test_published_sizes_agree_with_a_count_of_all_parameters(name):
  """Twice the blocks' parameters a token, 10·D·F an autoencoder, in all."""
  gemma = PUBLISHED[name]()
  config = TrainConfig(
    data=DataConfig(context=1024),
    sae=presets.gemma_scope_to((Site("resid", 9),), (2**15,), (20, 40)),
    mesh=MeshConfig(model=4),
  )
  d, heads = gemma.embed_dim, gemma.num_heads * gemma.head_dim
  block = 3 * d * gemma.hidden_dim + 2 * d * heads
  block += 2 * d * gemma.num_kv_heads * gemma.head_dim
  attention = 4 * heads * 1024 / 2
  lm = 10 * (2 * block + attention)
  expected = config.bucket_tokens * (lm + 2 * 10 * d * 2**15)
  found = planned(config, gemma).roofline.flops * 8
  assert found == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("placement", ["by_sae", "by_latent"])
@pytest.mark.parametrize("model", [1, 2])
def test_the_compiler_counts_as_many(placement, model):
  """In a bucket of one microbatch and one update no loop hides any."""
  config = TrainConfig(
    data=DataConfig(context=64),
    sae=SweepConfig(
      sites=(Site("mlp", 1), Site("resid", 2)),
      widths=(2048,),
      sparsity_coefficient=(1e-4, 2e-4, 4e-4, 8e-4),
      placement=placement,
    ),
    bucket=BucketConfig(microbatches=1, rows=16, update_tokens=1024),
    mesh=MeshConfig(model=model),
  )
  mesh = meshes.make(config.mesh)
  step = compile_step(config, mesh, *abstract_arguments(config, GEMMA, mesh))
  found = step.cost_analysis()["flops"]
  assert planned(config, GEMMA).roofline.flops == pytest.approx(found, rel=0.05)


@pytest.mark.parametrize("placement", ["by_sae", "by_latent"])
def test_the_compiler_counts_as_many_for_transcoders_with_a_skip(placement):
  """Devices that share the latents of one transcoder each compute its skip."""
  config = TrainConfig(
    data=DataConfig(context=64),
    sae=SweepConfig(
      sites=(Site("transcoder", 1), Site("transcoder", 2)),
      widths=(2048,),
      sparsity_coefficient=(1e-4, 2e-4, 4e-4, 8e-4),
      placement=placement,
      skip=True,
    ),
    bucket=BucketConfig(microbatches=1, rows=16, update_tokens=1024),
  )
  mesh = meshes.make(config.mesh)
  step = compile_step(config, mesh, *abstract_arguments(config, GEMMA, mesh))
  found = step.cost_analysis()["flops"]
  assert planned(config, GEMMA).roofline.flops == pytest.approx(found, rel=0.03)


def test_copies_are_counted_for_they_are_computed():
  """Three autoencoders on eight devices, one each: eight are trained."""
  config = TrainConfig(
    data=DataConfig(context=64),
    sae=SweepConfig(
      sites=(Site("resid", 0),),
      widths=(2048,),
      sparsity_coefficient=(1e-4, 2e-4, 4e-4),
      placement="by_sae",
    ),
    bucket=BucketConfig(microbatches=1, rows=16, update_tokens=1024),
  )
  sae = planned(config, GEMMA).roofline.parts[-1]
  assert math.isclose(sae.flops, 1.6 * 10 * 1024 * 256 * 2048)
