"""Sites have one written form, and names in other libraries."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxsae import renamed
from jaxsae.errors import UserError
from jaxsae.lm import Site, Taps, gemma2_2b
from jaxsae.lm.config import PUBLISHED
from jaxsae.lm.sites import (
  GEMMA_SCOPE,
  HUGGING_FACE,
  PAIRS,
  TRANSFORMER_LENS,
  WHERE,
)


@hypothesis.given(st.sampled_from([*WHERE, *PAIRS]), st.integers(0, 1000))
def test_a_site_reads_back_as_written(where, layer):
  site = Site(where, layer)
  assert Site.parse(str(site)) == site
  assert str(site) == f"{where}.{layer}"


@pytest.mark.parametrize(
  "text",
  ["", "resid", "resid.", ".3", "resid.-1", "resid.3.4", "resid.x", None, 3],
)
def test_what_is_not_a_site_is_named(text):
  with pytest.raises(UserError, match=r"is not a site; write .*resid\.12") as e:
    Site.parse(text)
  assert repr(text) in str(e.value)


@pytest.mark.parametrize("make", [Site.parse, lambda x: Site("mpl", 3)])
def test_the_error_about_an_unknown_site_lists_all(make):
  known = "resid, mlp, attn, mlp_in, transcoder"
  with pytest.raises(UserError, match=f"'mpl'; use one of {known}, as"):
    make("mpl.3")


@pytest.mark.parametrize("where", WHERE)
def test_an_autoencoder_of_one_site_reads_what_it_writes(where):
  site = Site(where, 3)
  taps = Taps.of(site)
  assert taps.site == site and taps.sites == (site,)
  assert not taps.transcodes and taps.is_causal
  assert str(taps) == str(site) and taps.kind == where


def test_a_transcoder_reads_one_site_and_writes_another():
  taps = Taps.transcoder(3)
  assert taps.reads == (Site("mlp_in", 3),)
  assert taps.writes == (Site("mlp", 3),)
  assert taps.transcodes and taps.is_causal
  assert (str(taps), taps.kind) == ("transcoder.3", "transcoder")
  config = gemma2_2b()
  assert taps.d_in(config) == taps.d(config) == 2304
  with pytest.raises(UserError, match=r"transcoder\.3 .*mlp_in\.3 or mlp\.3"):
    _ = taps.site


@pytest.mark.parametrize(
  "text, kind, causal",
  [
    ("resid.3", "resid", True),
    ("transcoder.3", "transcoder", True),
    ("mlp_in.3:mlp.4", "mlp_in:mlp", True),
    ("resid.3+resid.4", "resid+resid", False),
    ("resid.2+resid.3:resid.3", "resid+resid:resid", True),
    ("mlp_in.3:mlp.3+mlp.4", "mlp_in:mlp+mlp", True),
    ("resid.4:resid.3", "resid:resid", False),
  ],
)
def test_taps_are_written_as_they_are_read(text, kind, causal):
  taps = Taps.parse(text)
  assert str(taps) == text and Taps.parse(str(taps)) == taps
  assert taps.kind == kind and taps.is_causal == causal


def test_a_pair_in_full_is_a_transcoder():
  assert Taps.parse("mlp_in.3:mlp.3") == Taps.transcoder(3)


@pytest.mark.parametrize("text", ["resid.3+resid.3", "resid.3+", ":resid.3"])
def test_taps_that_cannot_be_are_refused(text):
  with pytest.raises(UserError, match=r"resid\.3"):
    Taps.parse(text)


@pytest.mark.parametrize(
  "text",
  [
    "transcoder.3+transcoder.4",
    "transcoder.3+resid.3",
    "resid.3+transcoder.3",
    "transcoder.3:mlp.3",
    "resid.3:transcoder.3",
  ],
)
def test_the_error_about_joined_transcoders_says_how_to_write_them(text):
  with pytest.raises(UserError, match=r"transcoder.*mlp_in\."):
    Taps.parse(text)


def test_text_stands_for_its_taps():
  assert Taps.of("resid.3") == Taps.of(Site("resid", 3))
  with pytest.raises(UserError, match="3 is not a site"):
    Taps.of(3)


def test_a_layer_of_thousands_of_digits_is_no_site():
  with pytest.raises(UserError, match="is not a site"):
    Taps.parse("resid." + "9" * 5000)


def test_sites_of_one_width_can_be_joined():
  config = gemma2_2b()
  Taps.parse("resid.3+mlp.4").check(config)
  with pytest.raises(UserError, match=r"attn\.3\+resid\.3 .*2048, 2304"):
    Taps.parse("attn.3+resid.3").check(config)
  with pytest.raises(UserError, match=r"resid\.26 .*0 to 25"):
    Taps.parse("resid.3+resid.26").check(config)


def test_the_old_name_of_a_transcoders_site_makes_its_taps(capsys, monkeypatch):
  monkeypatch.setattr(renamed, "_told", set())
  site = Site("transcoder", 3)
  assert site == Taps.transcoder(3)
  assert (site.where, site.layer) == ("transcoder", 3)
  assert (site.input, site.output) == (Site("mlp_in", 3), Site("mlp", 3))
  notes = capsys.readouterr().err.splitlines()
  assert len(notes) == 5 and "Taps.transcoder(layer)" in notes[0]


@pytest.mark.parametrize("layer", [-1, 26, 100])
def test_a_layer_that_is_not_there_is_named(layer):
  with pytest.raises(UserError, match=rf"mlp\.{layer} .*layers 0 to 25"):
    Site("mlp", layer).check(gemma2_2b())


def test_every_layer_of_the_model_passes():
  for layer in range(26):
    Site("mlp", layer).check(gemma2_2b())


@pytest.mark.parametrize(
  "name, resid, attn",
  [
    ("gemma2-2b", 2304, 2048),
    ("gemma2-9b", 3584, 4096),
    ("gemma2-27b", 4608, 4096),
    ("gemma3-270m", 640, 1024),
    ("gemma3-1b", 1152, 1024),
    ("gemma3-4b", 2560, 2048),
    ("gemma3-12b", 3840, 4096),
    ("gemma3-27b", 5376, 4096),
  ],
)
def test_widths_are_those_of_gemma_scope(name, resid, attn):
  """Attention sites are heads · head_dim wide (arXiv 2408.05147 §3.1)."""
  config = PUBLISHED[name]()
  widths = {where: Site(where, 0).width(config) for where in WHERE}
  assert widths.pop("attn") == attn
  assert widths == {"resid": resid, "mlp": resid, "mlp_in": resid}


@pytest.mark.parametrize("table", [TRANSFORMER_LENS, HUGGING_FACE])
def test_every_site_has_its_own_name_in_other_libraries(table):
  assert table.keys() == WHERE.keys()
  assert len(set(table.values())) == len(WHERE)


def test_gemma_scope_published_all_but_the_input_of_transcoders():
  assert GEMMA_SCOPE.keys() == (WHERE | PAIRS).keys() - {"mlp_in"}
  assert len(set(GEMMA_SCOPE.values())) == len(GEMMA_SCOPE)


def test_sites_sort_and_can_be_keys():
  sites = [Site("resid", 10), Site("resid", 9), Site("attn", 11)]
  assert [str(s) for s in sorted(sites)] == ["attn.11", "resid.9", "resid.10"]
  assert {Site("resid", 9): 1}[Site.parse("resid.9")] == 1


@pytest.mark.parametrize("layer", [1.5, True, "3", None, float("nan"), [3]])
@pytest.mark.parametrize("where", ["resid", "transcoder"])
def test_a_layer_is_a_whole_number(where, layer):
  make = Site if where == "resid" else Taps.of_pair
  with pytest.raises(UserError, match=rf"{where}.*whole number"):
    make(where, layer)


def test_a_numpy_layer_is_a_number():
  assert Site("resid", np.int64(3)) == Site("resid", 3)
  assert type(Site("resid", np.int64(3)).layer) is int


@pytest.mark.parametrize("where", [5, None, ["resid"]])
def test_a_kind_of_site_is_text(where):
  with pytest.raises(UserError, match="resid, mlp, attn"):
    Site(where, 3)


def test_sides_of_taps_may_be_text_or_one_site():
  expected = Taps((Site("resid", 3),), (Site("resid", 4), Site("resid", 5)))
  assert Taps("resid.3", "resid.4+resid.5") == expected
  assert Taps(Site("resid", 3), ["resid.4", Site("resid", 5)]) == expected
  for wrong in (5, None, [5]):
    with pytest.raises(UserError, match="resid"):
      Taps(wrong, "resid.4")
