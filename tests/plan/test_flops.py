"""FLOPs of a plan agree with a count by hand and with the compiler's."""

import math

import pytest

from jaxsae import mesh as meshes
from jaxsae.data import DataConfig
from jaxsae.lm import GemmaConfig, Site, Taps
from jaxsae.lm.config import PUBLISHED
from jaxsae.mesh import MeshConfig
from jaxsae.plan import plan as plans
from jaxsae.plan.topology import parse
from jaxsae.train.config import presets
from jaxsae.train.config.run import BucketConfig, SweepConfig, TrainConfig
from jaxsae.train.sources.text import abstract_arguments
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
  """Counts 2 per parameter of the blocks, 10·D·F per autoencoder, per token."""
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
  expected = config.fitted(2).bucket_tokens * (lm + 2 * 10 * d * 2**15)
  found = planned(config, gemma).roofline.flops * 8
  assert found == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("placement", ["by_sae", "by_latent"])
@pytest.mark.parametrize("model", [1, 2])
def test_flops_agree_with_the_compiler(placement, model):
  """With one microbatch and one update, no loop hides FLOPs."""
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
def test_flops_of_transcoders_with_a_skip_agree_with_the_compiler(placement):
  """Every device that shares a transcoder's latents computes its skip."""
  config = TrainConfig(
    data=DataConfig(context=64),
    sae=SweepConfig(
      sites=(Taps.transcoder(1), Taps.transcoder(2)),
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


def test_flops_include_copies_because_they_are_computed():
  """Three autoencoders on eight devices, one on each, are trained as eight."""
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
