"""Reading a site changes nothing; writing to it changes what follows."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.lm import Site, Taps, capture, edit, run, splice
from jaxsae.lm.edits import Patch
from jaxsae.lm.sites import WHERE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sites(grouped):
  layers = range(grouped.config.num_layers)
  return [Site(where, layer) for layer in layers for where in WHERE]


@pytest.fixture(scope="module")
def logits(grouped, tokens):
  return grouped.logits(tokens)


def test_edits_that_change_nothing_leave_every_bit(
  grouped, tokens, sites, logits
):
  edited = edit(grouped, tokens, dict.fromkeys(sites, lambda x: x))
  np.testing.assert_array_equal(edited, logits)
  np.testing.assert_array_equal(run(grouped, tokens, {}), logits)


def test_capture_sees_what_an_edit_sees(grouped, tokens, sites):
  seen = {}

  def reader(site):
    return lambda x: seen.setdefault(site, x)

  edit(grouped, tokens, {site: reader(site) for site in sites})
  captured = capture(grouped, tokens, *sites)
  assert list(captured) == sorted(captured, key=list(seen).index)
  assert set(captured) == set(sites)
  for site, x in captured.items():
    assert x.shape == (*tokens.shape, site.width(grouped.config))
    np.testing.assert_array_equal(x, seen[site])


def test_writing_back_what_was_read_changes_nothing(
  grouped, tokens, sites, logits
):
  captured = capture(grouped, tokens, *sites)
  put_back = {site: lambda _, x=x: x for site, x in captured.items()}
  np.testing.assert_array_equal(edit(grouped, tokens, put_back), logits)


@pytest.fixture(scope="module")
def changed_at(grouped, tokens, sites):
  """Returns {site as text: logits after editing every third token there}."""
  third = (jnp.arange(16) % 3 == 0)[None, :, None]

  @jax.jit
  def change(lm, tokens):
    return {
      str(site): edit(
        lm, tokens, {site: lambda x: jnp.where(third, 2 * x + 1, x)}
      )
      for site in sites
    }

  return change(grouped, tokens)


def test_an_edit_changes_the_logits_of_its_tokens(changed_at, sites, logits):
  for site in sites:
    changed = np.abs(changed_at[str(site)] - logits).max(-1) > 1e-4  # [B, T]
    assert changed[:, ::3].all(), site
    # Other tokens change through the attention of a later layer.
    assert changed[:, 1::3].any() == (site.layer < 3), site


def test_all_sites_are_different_places(changed_at):
  for one, other in itertools.combinations(changed_at.values(), 2):
    assert np.abs(one - other).max() > 1e-3


def test_an_edit_leaves_earlier_sites_alone(grouped, tokens, sites):
  middle = Site("mlp", 1)
  plain = capture(grouped, tokens, *sites)
  seen = {}

  def reader(site):
    return lambda x: seen.setdefault(site, x)

  readers = {site: reader(site) for site in sites}
  edit(grouped, tokens, readers | {middle: lambda x: x + 1})
  for site in set(sites) - {middle}:
    same = bool((seen[site] == plain[site]).all())
    before = site.layer < 1 or site in (Site("attn", 1), Site("mlp_in", 1))
    assert same == before, site


def test_a_site_can_be_read_under_jit(grouped, tokens, sites):
  under_jit = jax.jit(lambda lm, tokens: capture(lm, tokens, *sites))
  inside = under_jit(grouped, tokens)
  for site, x in capture(grouped, tokens, *sites).items():
    np.testing.assert_allclose(inside[site], x, atol=1e-5)


def test_captures_of_different_sites_are_independent(grouped, tokens):
  """A capture keeps nothing of the one before."""
  one, other = Site("resid", 0), Site("mlp", 0)
  first = capture(grouped, tokens, one)
  second = capture(grouped, tokens, other)
  assert (list(first), list(second)) == ([one], [other])
  assert np.abs(first[one] - second[other]).max() > 1e-4


@pytest.mark.parametrize("cost", ["flops", "products"])
def test_blocks_above_the_last_site_do_not_run(grouped, tokens, cost):
  measure = {"flops": flops, "products": products}[cost]
  by_layer = [
    measure(
      lambda lm, t, i=i: capture(lm, t, Site("resid", i)), grouped, tokens
    )
    for i in range(4)
  ]
  whole = measure(lambda lm, t: lm.logits(t), grouped, tokens)
  for layer, count in enumerate(by_layer):
    assert count == pytest.approx((layer + 1) * by_layer[0], rel=0.05)
  assert whole > by_layer[3]


def flops(function, *args):
  """Returns the FLOPs of the compiled function."""
  return jax.jit(function).lower(*args).cost_analysis()["flops"]


def products(function, *args):
  """Counts the products of a function before any are optimised away."""
  return str(jax.make_jaxpr(function)(*args)).count("dot_general")


def test_no_site_asks_for_no_block(grouped, tokens):
  assert capture(grouped, tokens) == {}


def test_stopping_early_gives_the_residual_stream(grouped, tokens):
  stopped = run(grouped, tokens, {}, num_blocks=2)
  site = Site("resid", 1)
  captured = capture(grouped, tokens, site)[site]
  np.testing.assert_array_equal(stopped, captured)


@pytest.mark.parametrize("layer", [0, 3])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_transcoder_that_is_the_mlp_changes_nothing(
  grouped, tokens, logits, layer, wrap
):
  edits = splice(Taps.transcoder(layer), own_mlp(grouped, layer))
  spliced = wrap(lambda lm, tokens: edit(lm, tokens, edits))
  for _ in range(2):  # edits can be used again
    np.testing.assert_allclose(spliced(grouped, tokens), logits, atol=1e-5)


def own_mlp(lm, layer):
  """Computes mlp from mlp_in [B, T, D], independently of the model."""
  p = jax.tree.map(np.asarray, lm.params[f"layer_{layer}"])

  def apply(x):
    gate, up = jnp.einsum("BTD,SDF->SBTF", x, p["mlp"]["gating_einsum"])
    y = (jax.nn.gelu(gate) * up) @ p["mlp"]["linear"]
    rms = jnp.sqrt(jnp.mean(y**2, axis=-1, keepdims=True) + 1e-6)
    return y / rms * (1 + p["post_ffw_norm"]["scale"][None, None])

  return apply


def test_a_splice_replaces_the_output_by_a_function_of_the_input(
  grouped, tokens
):
  site = Taps.transcoder(2)
  read = capture(grouped, tokens, site.reads[0])[site.reads[0]]
  by_hand = edit(grouped, tokens, {site.writes[0]: lambda _: 2 * read + 1})
  spliced = edit(grouped, tokens, splice(site, lambda x: 2 * x + 1))
  np.testing.assert_array_equal(spliced, by_hand)
  assert np.abs(spliced - grouped.logits(tokens)).max() > 1e-3


def test_a_site_that_is_written_is_read_as_it_was_for_every_write(
  grouped, tokens
):
  taps = Taps.parse("resid.1:resid.1+resid.2")
  (site,) = taps.reads
  read = capture(grouped, tokens, site)[site]
  by_hand = {
    taps.writes[0]: lambda _: 2 * read,
    taps.writes[1]: lambda _: -read,
  }
  both = lambda x: jnp.concatenate([2 * x, -x], axis=-1)
  spliced = edit(grouped, tokens, splice(taps, both))
  np.testing.assert_array_equal(spliced, edit(grouped, tokens, by_hand))


def test_sites_and_taps_can_be_keys_of_the_same_edits(grouped, tokens):
  patch = Patch(np.zeros(grouped.config.embed_dim))
  first, second = Site("resid", 1), Site("resid", 2)
  mixed = edit(grouped, tokens, {first: patch, Taps.of(second): patch})
  expected = edit(grouped, tokens, {first: patch, second: patch})
  np.testing.assert_array_equal(mixed, expected)


def test_two_edits_of_one_site_are_refused(grouped, tokens):
  site = Site("resid", 1)
  edits = {site: lambda x: x, Taps.of(site): lambda x: -x}
  with pytest.raises(UserError, match=r"resid\.1 has two edits"):
    edit(grouped, tokens, edits)


def test_another_edit_does_not_take_the_place_of_a_part(grouped, tokens):
  edits = splice(Taps.parse("resid.1+resid.2"), lambda x: x)
  edits |= {Site("resid", 2): lambda x: x}
  with pytest.raises(UserError, match=r"writes resid\.2, which has another"):
    edit(grouped, tokens, edits)


def test_transcoders_of_several_layers_are_independent(grouped, tokens):
  edits = {}
  for layer in range(4):
    at = Taps.transcoder(layer)
    edits |= splice(at, own_mlp(grouped, layer))
  spliced = edit(grouped, tokens, edits)
  np.testing.assert_allclose(spliced, grouped.logits(tokens), atol=1e-5)


def test_a_splice_at_one_site_is_an_edit(grouped):
  double = lambda x: 2 * x
  assert splice(Site("resid", 1), double) == {Site("resid", 1): double}


def test_a_splice_leaves_no_tracer_behind(grouped, tokens):
  edits = splice(Taps.transcoder(1), lambda x: x)
  with jax.checking_leaks():
    jax.jit(lambda lm, tokens: edit(lm, tokens, edits))(grouped, tokens)


def test_a_splice_that_changes_the_width_is_named(grouped, tokens):
  edits = splice(Taps.transcoder(1), lambda x: x[..., :5])
  with pytest.raises(UserError, match=r"mlp\.1 returned shape \[2, 16, 5\]"):
    edit(grouped, tokens, edits)


@pytest.mark.parametrize(
  "call",
  [
    lambda lm, tokens, site: capture(lm, tokens, site),
    lambda lm, tokens, site: edit(lm, tokens, {site: lambda x: x}),
    lambda lm, tokens, site: run(lm, tokens, {site: lambda x: x}),
  ],
  ids=["capture", "edit", "run"],
)
def test_a_pair_cannot_be_read_or_edited_as_one_site(grouped, tokens, call):
  with pytest.raises(UserError, match=r"transcoder\.1 .*mlp_in\.1 or mlp\.1"):
    call(grouped, tokens, Taps.transcoder(1))


@pytest.mark.parametrize("call", [capture, edit], ids=["capture", "edit"])
def test_a_layer_that_is_not_there_is_named(grouped, tokens, call):
  site = Site("resid", 4)
  given = site if call is capture else {site: lambda x: x}
  with pytest.raises(UserError, match=r"resid\.4 is out .*layers 0 to 3"):
    call(grouped, tokens, given)


def test_an_edit_keeps_shape_and_dtype(grouped, tokens):
  site = Site("mlp", 1)
  with pytest.raises(UserError, match=r"mlp\.1 .*\[32\].*\[2, 16, 32\]"):
    edit(grouped, tokens, {site: lambda x: x[0, 0]})

  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), grouped)
  widened = {site: lambda x: x.astype(jnp.float32)}
  after = run(half, tokens, widened, num_blocks=4)
  assert after.dtype == jnp.bfloat16


def test_gradients_flow_through_an_edit(grouped, tokens):
  @jax.jit
  def steered(strength):
    steer = {Site("resid", 1): lambda x: x + strength}
    return edit(grouped, tokens[:1], steer)[0, -1, 7]

  slope = (steered(1e-2) - steered(-1e-2)) / 2e-2
  np.testing.assert_allclose(jax.grad(steered)(0.0), slope, rtol=1e-2)


def test_a_crosscoder_sees_edits_of_other_sites(grouped, tokens):
  """It reads after it writes, so it reads in a pass before its own."""
  steer = {Site("mlp_in", 0): lambda x: x + 50}
  steered = edit(grouped, tokens, steer)
  assert np.abs(steered - grouped.logits(tokens)).max() > 1e-3
  same = splice(Taps.parse("resid.0+resid.1"), lambda x: x)
  np.testing.assert_allclose(
    edit(grouped, tokens, same | steer), steered, atol=1e-5
  )
