"""The roofline agrees with arithmetic by hand."""

import pytest
from jax.sharding import AbstractMesh

from jaxsae.data import DataConfig
from jaxsae.lm import GemmaConfig, Site
from jaxsae.plan import lm_work
from jaxsae.plan.roofline import Part, Roofline
from jaxsae.train.config.run import BucketConfig, SweepConfig, TrainConfig

# D=8, H=2·4, K=1·4 over one key head, F=16.
GEMMA = GemmaConfig(
  vocab_size=32,
  num_layers=3,
  embed_dim=8,
  hidden_dim=16,
  num_heads=2,
  num_kv_heads=1,
  head_dim=4,
  query_pre_attn_scalar=4,
  window=2,
)


def config(site, **fields):
  return TrainConfig(
    data=DataConfig(context=4),
    sae=SweepConfig(sites=(site,), widths=(64,)),
    bucket=BucketConfig(microbatches=2, rows=4, update_tokens=16),
    **fields,
  )


def work(site, data=1, model=1, **fields):
  mesh = AbstractMesh((data, model), ("data", "model"))
  return lm_work.work(config(site, **fields), GEMMA, mesh)


def test_a_part_takes_the_longest_of_three_times_or_their_sum():
  part = Part("", compute=0.25, memory=0.5, communication=0.125)
  assert (part.seconds, part.seconds_without_overlap, part.bound) == (
    0.5,
    0.875,
    "memory",
  )
  assert Part("", 1.0, 0.5, 0.25).bound == "compute"
  assert Part("", 1.0, 0.5, 2.0).bound == "communication"


def test_the_times_of_parts_add_up():
  a = Part("", 1.0, 2.0, 0.0, flops=5.0, traffic=7.0, sent=1.0)
  b = Part("", 4.0, 2.0, 1.0, flops=6.0, traffic=8.0, sent=2.0)
  both = Roofline((a, b))
  assert (both.seconds, both.seconds_without_overlap) == (6, 10)
  assert (both.flops, both.traffic, both.sent) == (11, 15, 3)


# Block 0 has a window of two: queries of a row of four see 1, 2, 2 and 2
# keys, 1.75 on average; each key takes 4 FLOPs for each of 8 numbers.
ATTENTION = 4 * 8 * 1.75
QKV, OUT, MLP = 8 * (8 + 2 * 4), 8 * 8, 3 * 8 * 16


@pytest.mark.parametrize(
  ("where", "weights"),
  [
    ("attn", QKV),
    ("mlp_in", QKV + OUT),
    ("mlp", QKV + OUT + MLP),
    ("resid", QKV + OUT + MLP),
  ],
)
def test_flops_up_to_a_site_agree_with_a_count_by_hand(where, weights):
  tokens = 2 * 4 * 4
  assert work(Site(where, 0)).flops == tokens * (2 * weights + ATTENTION)


def test_a_block_without_a_window_sees_the_whole_row():
  below = work(Site("resid", 0)).flops
  one = work(Site("attn", 1)).flops - below
  assert one == 32 * (2 * QKV + 4 * 8 * 2.5)  # 1, 2, 3 and 4 keys


def test_flops_are_shared_by_all_devices():
  alone = work(Site("resid", 2)).flops
  assert work(Site("resid", 2), data=4, model=2).flops == alone / 8


def test_bytes_of_all_reduces_agree_with_a_count_by_hand():
  """The embedding, attention and the MLP each send; numbers have two bytes."""
  assert work(Site("resid", 0), data=4).sent == 0
  activations = 2 * 32 / 4 * 8
  found = work(Site("resid", 0), data=4, model=2).sent
  assert found == 3 * 2 * (1 - 1 / 2) * activations


def test_fsdp_gathers_the_weights_of_each_microbatch():
  weights = 2 * (QKV + OUT + MLP)
  found = work(Site("resid", 0), data=4, fsdp=True).sent
  assert found == 2 * (1 - 1 / 4) * weights


def test_weights_are_read_for_each_microbatch():
  site = Site("resid", 0)
  few = work(site).traffic - work(site, model=2).traffic
  assert few > 2 * 2 * (QKV + OUT + MLP) / 2
