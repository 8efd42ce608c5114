"""The comparison on a language model, at toy size."""

import re

import pytest

from jaxsae.data import DataConfig
from jaxsae.lm import Site

pytest.importorskip("torch")
pytest.importorskip("sae_lens")  # so that its warnings are not errors
language = pytest.importorskip("experiments.comparison.language")


@pytest.mark.filterwarnings("ignore")  # SAELens' own
def test_the_page_has_every_side_and_target(
  monkeypatch, tmp_path, lm_path, texts
):
  toy = language.Comparison(
    lm=str(lm_path),
    data=DataConfig(str(texts), context=16, cache=str(tmp_path / "cache")),
    site=Site("resid", 1),
    width=64,
    updates=20,
    batch=64,
    targets=(4, 8),
    seeds=(1, 2),
    rows=8,
    held_out=2,
    loss_batches=1,
  )
  out = tmp_path / "page.md"
  monkeypatch.setattr(language, "Comparison", lambda: toy)
  monkeypatch.setattr("sys.argv", ["language", f"--out={out}"])
  language.main()
  rows = [x.split(" | ") for x in out.read_text("utf-8").splitlines()]
  rows = [row for row in rows if re.match(r"\| \d", row[0])]
  assert [row[:2] for row in rows] == [
    [f"| {target}", name] for target in (4, 8) for name in language.SIDES
  ]
  for row in rows:
    assert all(re.fullmatch(r"-?[\d.]+ ± [\d.]+( \|)?", x) for x in row[2:])
    if "BatchTopK" not in row[1]:  # theirs starts its threshold at 0
      assert 0 < float(row[3].split(" ")[0]) < 1  # FVU
