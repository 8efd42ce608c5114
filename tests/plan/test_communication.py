"""What a compiled step sends, by axis, read from its text."""

import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh

from jaxsae import mesh as meshes
from jaxsae.mesh import MeshConfig
from jaxsae.plan import communication
from jaxsae.plan.hlo import Collective
from jaxsae.train.step import abstract_arguments
from tests.train import placed
from tests.train.toys import compile_step

MESH = AbstractMesh((4, 2), ("data", "model"))


@pytest.mark.parametrize(
  ("together", "axis"),
  [
    ((0, 1), "model"),
    ((2, 3), "model"),
    ((0, 2, 4, 6), "data"),
    ((1, 3), "data"),
    ((3, 4), "data+model"),
    ((), "data+model"),
  ],
)
def test_the_axis_along_which_devices_lie(together, axis):
  assert (
    communication.axis(Collective("all-gather", 8, 2, 1, together), MESH)
    == axis
  )


TEXT = """HloModule step

%read (p: f32[4]) -> f32[4] {
  %a = f32[4]{0} all-reduce(%p), channel_id=1, replica_groups={{0,1},{2,3}}, \
to_apply=%sum
}

%update (p: f32[4]) -> f32[4] {
  %b = f32[8]{0} all-gather(%p), channel_id=2, replica_groups={{0,2},{1,3}}, \
dimensions={0}, metadata={op_name="jit(step)/updates/while/body/gather"}
  %send.1 = (f32[4]{0:T(128)}, u32[], token[]) send(%b, %t), channel_id=3, \
is_host_transfer=true, frontend_attributes={\
_xla_host_transfer_handler_name="xla_megascale_runtime",\
_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_GATHER"}
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %r = f32[4] while(%p), condition=%c, body=%read, \
metadata={op_name="jit(step)/reads/while"}
  %u = f32[4] while(%p), condition=%c, body=%update
  %send.2 = (bf16[6]{0}, u32[], token[]) send(%b, %t), channel_id=4, \
is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2}x{0:3}"\
,_xla_megascale_transfer_type="ALL_REDUCE"}
  ROOT %x = f32[2]{0} collective-permute(%u), channel_id=5, \
source_target_pairs={{0,0},{1,2},{2,1},{3,3}}
}
"""


def test_loops_turn_as_often_as_the_run_says(config):
  """Four microbatches and eight updates; on each of two slices 2 x 2."""
  mesh = AbstractMesh((4, 2), ("data", "model"))
  sent = communication.bytes_sent(config, mesh, TEXT)
  assert sent.within == {
    ("all-reduce", "model"): 4 * 16,
    ("all-gather", "data"): 8 * 16,
    ("collective-permute", "data+model"): 8,
  }
  assert sent.between == 8 * 16 + 12
  assert sent.total == 64 + 128 + 8 + 140


def test_a_step_sends_along_the_axes_of_its_placement():
  mesh = meshes.make(MeshConfig(4, 2))
  found = {}
  for name in ("by_latent", "by_latent_and_row"):
    config = placed.config(name, 4)
    arguments = abstract_arguments(config, placed.GEMMA, mesh, jnp.float32)
    text = compile_step(config, mesh, *arguments).as_text()
    found[name] = communication.bytes_sent(config, mesh, text).within
  rows = found["by_latent_and_row"]
  gradients = 4 * 2 * 4 * 2048 / 2 * 2 * 256
  updates = config.updates_per_bucket
  expected = 2 * (1 - 1 / 4) * gradients * updates
  assert rows["all-reduce", "data"] == pytest.approx(expected, rel=0.1)
  assert found["by_latent"]["all-reduce", "data"] < 0.1 * expected
