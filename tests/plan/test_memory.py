"""A plan's memory agrees with real arrays and with the compiler."""

import functools

import jax
import jax.numpy as jnp
import pytest

from jaxsae import load_lm
from jaxsae import mesh as meshes
from jaxsae.plan import plan as plans
from jaxsae.plan.compilation import needed
from jaxsae.plan.topology import parse
from jaxsae.train.placement.layout import sharding
from jaxsae.train.sources.text import abstract_arguments
from jaxsae.train.state import abstract_state
from tests.train.toys import compile_step, init_state

pytestmark = pytest.mark.slow

SLICES = parse("v5e:2x4")


@pytest.fixture(params=[(1, False), (2, True)], ids=["data", "model, fsdp"])
def config(config, replace, request):
  model, fsdp = request.param
  return replace(config, mesh__model=model, fsdp=fsdp)


@pytest.fixture
def mesh(config):
  return meshes.make(config.mesh)


@pytest.fixture
def lm(config, mesh):
  return load_lm(config.lm, dtype=jnp.bfloat16, mesh=mesh, fsdp=config.fsdp)


def here(tree) -> int:
  """Returns the bytes of arrays that the first device holds."""
  first = jax.devices()[0]
  return sum(
    shard.data.nbytes
    for x in jax.tree.leaves(tree)
    if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    for shard in x.addressable_shards
    if shard.device == first
  )


def test_the_breakdown_agrees_with_the_arrays_of_a_run(config, mesh, lm):
  breakdown = plans.on_mesh(config, lm.config, mesh, SLICES, False).memory
  layout = sharding(abstract_state(config, lm.config, mesh), mesh)
  begin = functools.partial(init_state, config, lm.config)
  state = jax.jit(begin, out_shardings=layout)()
  moments = [stack.moments for stack in state.stacks]
  assert breakdown.lm == here(lm.params)
  assert breakdown.moments == here(moments)
  key = 8
  assert breakdown.saes + breakdown.moments == here(state) + key


def test_the_total_is_the_compilers_plus_weights_above_the_last_site(
  config, mesh, lm, replace
):
  """The compiled step does not take weights of layers that it does not run."""
  config = replace(config, sae__sites=config.sae.sites[1:])  # attn.0
  plan = plans.on_mesh(config, lm.config, mesh, SLICES)
  arguments = abstract_arguments(config, lm.config, mesh)
  step = compile_step(config, mesh, *arguments).memory_analysis()
  unread = meshes.on_device(arguments) - step.argument_size_in_bytes
  assert unread > meshes.on_device(arguments[1].params["layer_1"])
  made = step.temp_size_in_bytes + step.generated_code_size_in_bytes
  made += step.output_size_in_bytes - step.alias_size_in_bytes
  peak = step.argument_size_in_bytes + made
  assert plan.needed == pytest.approx(peak + unread, rel=0.01)
  assert plan.fits and plan.headroom == plan.capacity - plan.needed


def test_a_bucket_twice_as_long_takes_twice_the_memory(
  config, mesh, lm, replace
):
  of = lambda config: (
    plans.on_mesh(config, lm.config, mesh, SLICES, False).memory.bucket
  )
  tokens = 4 * 8 * 16 / mesh.shape["data"]
  assert of(config) == tokens * 2 * (32 + 64)  # resid and attn, bfloat16
  assert of(replace(config, bucket__microbatches=8)) == 2 * of(config)
  wide = replace(config, bucket__dtype="float32")
  assert of(wide) == 2 * of(config)


@pytest.mark.parametrize(
  ("message", "size"),
  [
    (
      "RESOURCE_EXHAUSTED: Used 401.25G of 15.75G hbm. Exceeded",
      401.25 * 2**30,
    ),
    (
      "E1000: CompileTimeHbmOom … (181.09G) exceeds available HBM (15.75G)",
      int(181.09 * 2**30),
    ),
    ("RESOURCE_EXHAUSTED: Used 17.5M of 1.0M hbm", 17.5 * 2**20),
    (
      "RESOURCE_EXHAUSTED: Allocation (size=17180131328) would exceed memory",
      17180131328,
    ),
    ("INTERNAL: RET_CHECK allocation_size_words <= 2147483647", None),
  ],
)
def test_needed_bytes_are_read_from_the_compilers_message(message, size):
  assert needed(message) == size


def test_any_other_failure_of_the_compiler_is_raised():
  with pytest.raises(RuntimeError, match="something else"):
    needed("INTERNAL: something else")
