"""Bytes that devices send in an update agree with the cost model."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import pytest

from jaxsae import mesh as meshes
from jaxsae.plan import hlo
from jaxsae.plan.compiler_process import environment
from jaxsae.plan.hlo import Collective
from jaxsae.train.placement import placements
from tests.train import placed

pytestmark = pytest.mark.slow

HERE = pathlib.Path(__file__).parent


# What moves rows or reconstructions; of the rest there is next to nothing.
ALLOWED = {
  "by_sae": {"all-to-all"},
  "by_sae_and_latent": {"all-gather", "all-to-all", "all-reduce"},
  "by_latent": {"all-gather", "all-reduce"},
  "by_latent_and_row": {"all-gather", "all-reduce"},
}


@functools.cache
def here(name, data, model, kind="jumprelu"):
  mesh = meshes.make(meshes.MeshConfig(data, model))
  return placed.compiled(name, mesh, jnp.float32, kind)


@functools.cache
def on_tpu(slice_name, shape, kind="jumprelu", *names):
  if sys.platform != "linux":
    pytest.skip("the TPU's compiler exists for Linux only")
  done = subprocess.run(
    [
      sys.executable,
      "-m",
      "tests.train.on_tpu",
      slice_name,
      shape,
      kind,
      *names,
    ],
    capture_output=True,
    text=True,
    cwd=HERE.parents[2],
    env=environment(os.environ),
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout)


def check(name, found, floor=0.02, rel=0.05):
  """Checks that an update sends what its placement needs and the model says."""
  sent, predicted = found["sent"], found["predicted"]
  assert sum(sent.values()) == pytest.approx(predicted, rel=rel)
  large = {kind for kind, size in sent.items() if size > floor * predicted}
  assert large <= ALLOWED[name], sent


@pytest.mark.parametrize("name", placements.ALL)
@pytest.mark.parametrize(("data", "model"), [(8, 1), (4, 2), (2, 4)])
def test_an_update_sends_what_its_placement_needs(name, data, model):
  check(name, here(name, data, model))


@pytest.mark.parametrize("name", placements.ALL)
@pytest.mark.parametrize("where", [("v5e:2x4", "2x4"), ("v5p:4x4x4", "16x4")])
def test_an_update_sends_the_same_on_a_tpu(name, where):
  # Of few columns the compiler makes a gather an all-reduce.
  check(name, on_tpu(*where)[name], rel=0.07)


# By row, AuxK's gradients of directions are summed as well.
@pytest.mark.parametrize(
  ("name", "kind"),
  [
    ("by_sae_and_latent", "ragged"),
    ("by_sae_and_latent", "topk"),
    ("by_latent", "matryoshka"),
    ("by_latent", "topk"),
    ("by_latent_and_row", "ragged"),
  ],
)
def test_where_latents_are_split_only_sums_over_them_are_sent(name, kind):
  check(name, here(name, 4, 2, kind))


def test_prefixes_send_their_sums_alone_on_a_tpu():
  name = "by_latent"
  check(name, on_tpu("v5e:2x4", "2x4", "matryoshka", name)[name])


def test_a_search_for_the_largest_gathers_nothing_on_a_tpu():
  name = "by_latent"
  plain = on_tpu("v5e:2x4", "2x4")[name]["sent"]
  found = on_tpu("v5e:2x4", "2x4", "topk", name)[name]["sent"]
  assert found.keys() == {"all-gather", "all-reduce"}
  assert found["all-gather"] == pytest.approx(plain["all-gather"], rel=0.01)


@pytest.mark.parametrize("name", ["by_sae_and_latent", "by_latent"])
def test_latents_are_interleaved_by_sending_each_its_share(name):
  found = here(name, 8, 1, "matryoshka")
  moved = found["outside"].get("all-to-all", 0)
  assert moved == pytest.approx(found["moved"], rel=0.1)
  assert found["outside"].get("collective-permute", 0) < 0.1 * moved


@pytest.mark.parametrize("kind", ["jumprelu", "matryoshka"])
def test_moves_to_a_divided_axis_agree_with_the_prediction(kind):
  found = here("by_sae_and_latent", 4, 2, kind)
  assert moved_outside(found) == pytest.approx(found["moved"], rel=0.1)


@pytest.mark.parametrize("name", ["by_sae", "by_sae_and_latent"])
def test_moves_between_buckets_agree_with_the_prediction(name):
  found = here(name, 4, 2)
  # The count of idle tokens and the diagnosis' rows move as well.
  assert moved_outside(found) == pytest.approx(found["moved"], rel=0.1)


def moved_outside(found):
  kinds = ("all-to-all", "collective-permute")
  return sum(found["outside"].get(kind, 0) for kind in kinds)


def test_few_autoencoders_on_many_devices_send_less_than_half_on_a_tpu():
  name = "by_sae_and_latent"
  found = on_tpu("v6e:8x8", "64x1", "few", name)[name]
  # As if all devices summed the reconstructions of all four autoencoders.
  tokens, width = 256 * 64, placed.GEMMA.embed_dim
  undivided = 2 * (63 / 64) * 4 * tokens * width * 4
  assert sum(found["sent"].values()) < undivided / 2


def test_autoencoders_already_in_their_placement_do_not_move():
  found = here("by_latent", 4, 2)
  assert found["moved"] == 0
  assert not {"all-to-all", "collective-permute"} & found["outside"].keys()


TEXT = """HloModule step

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}

%inner (p: f32[4]) -> f32[4] {
  %cp = f32[4]{0} collective-permute(%p), channel_id=1, \
source_target_pairs={{0,1},{1,0}}
}

%beside (p: bf16[8]) -> bf16[16] {
  %all-gather.2 = bf16[16]{0} all-gather(%p), channel_id=2, \
replica_groups=[4,2]<=[8], dimensions={0}
}

%again (p: bf16[8]) -> bf16[16] {
  %all-gather.3 = bf16[16]{0} all-gather(%p), channel_id=2, \
replica_groups=[4,2]<=[8], dimensions={0}
}

%all-reduce-scatter.1 (p: f32[8]) -> f32[2] {
  %all-reduce.9 = f32[8]{0} all-reduce(%p), channel_id=3, \
replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%sum
}

%body (p: f32[4]) -> f32[4] {
  %w = f32[4] while(%p), condition=%c, body=%inner, \
backend_config={"known_trip_count":{"n":"5"}}
  %f = bf16[16] fusion(%p), kind=kLoop, calls=%beside
  %g = bf16[16] fusion(%p), kind=kLoop, calls=%again
  %h = f32[2] fusion(%p), kind=kLoop, calls=%all-reduce-scatter.1
  %s = (f32[2]{0}, f32[8]{0}) all-gather-start(%p), channel_id=4, \
replica_groups=mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_0'}
  ROOT %d = f32[8]{0} all-gather-done(%s)
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %ar = (f32[], f32[3]{0}) all-reduce(%p, %p), channel_id=7, \
replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%sum
  ROOT %loop = f32[4] while(%p), condition=%c, body=%body, \
metadata={op_name="jit(step)/updates/while"}
}
"""


def test_every_collective_is_read_once():
  assert hlo.in_updates(TEXT) == [
    Collective("collective-permute", 16, 2, times=5),
    Collective("all-gather", 32, 2),
    Collective("reduce-scatter", 32, 4),
    Collective("all-gather", 32, 4),
  ]
  assert hlo.outside(TEXT) == [Collective("all-reduce", 16, 8)]


def test_the_group_is_read_in_every_form():
  found = [one.group for one in hlo.in_updates(TEXT)]
  assert found == [(0, 1), (0, 1), (0, 1, 2, 3), (0, 1, 2, 3)]


@pytest.mark.parametrize(
  ("groups", "together"),
  [
    ("replica_groups=[2,4]<=[4,2]T(1,0)", (0, 2, 4, 6)),
    ("replica_groups=mesh['a'=2,'b'=4] {'b'}", (0, 1, 2, 3)),
    ("replica_groups=mesh['a'=2,'b'=4] {'a'}", (0, 4)),
    ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", tuple(range(8))),
    ("replica_groups=mesh['a'=8] {'a':(1)2}", (0, 4)),
    ("replica_groups=mesh['a'=8] {'a':(2)2}", (0, 2)),
    ("replica_groups={}", ()),
  ],
)
def test_the_first_group(groups, together):
  text = TEXT.replace("replica_groups=[4,2]<=[8]", groups)
  assert hlo.in_updates(text)[1].group == together


def test_bytes_between_slices_are_read_from_send_instructions():
  send = (
    "  %send.1 = (f32[8]{0:T(128)}, u32[], token[]) send(%p, %t), channel_id=9,"
    " frontend_attributes={"
    '_xla_megascale_target="{1:4}x{0:7}",_xla_megascale_transfer_type="KIND"}'
  )
  head = "ENTRY %main (p: f32[4]) -> f32[4] {\n"
  for kind, sent in [("ALL_GATHER", 3 * 32), ("ALL_REDUCE", 2 * 3 / 4 * 32)]:
    text = TEXT.replace(head, f"{head}{send.replace('KIND', kind)}\n")
    (found,) = (one for one in hlo.outside(text) if one.between_slices)
    assert (found.devices, found.sent) == (4, sent)


def test_a_loop_without_its_name_is_found_by_its_body():
  named = 'metadata={op_name="jit(step)/updates/while"}'
  inside = "channel_id=4, "
  mark = 'metadata={op_name="jit(step)/updates/while/body/x"}, '
  text = TEXT.replace(f", {named}", "").replace(inside, f"{inside}{mark}")
  assert hlo.in_updates(text) == hlo.in_updates(TEXT)


def test_a_device_sends_the_bytes_of_a_ring():
  assert Collective("all-reduce", 800, 8).sent == 1400
  assert Collective("all-gather", 800, 8).sent == 700
  assert Collective("collective-permute", 800, 2, times=3).sent == 2400
