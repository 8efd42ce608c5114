"""The comparison on a language model, at toy size."""

import re

import pytest

from jaxsae.data import DataConfig
from jaxsae.lm import Site
from tests.libraries import need

pytestmark = pytest.mark.slow

need("torch")
need("sae_lens")  # so that its warnings are not errors
language = need("experiments.comparison.language")


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
    rates=(8e-3,),
    lambdas=(3e-3, 1e-2),
    rows=8,
    held_out=2,
    loss_batches=1,
  )
  out = tmp_path / "page.md"
  monkeypatch.setattr(language, "Comparison", lambda: toy)
  monkeypatch.setattr("sys.argv", ["language", f"--out={out}"])
  language.main()
  text = out.read_text("utf-8")
  trained, level, chosen = (rows(part) for part in text.split("\n## ")[1:])
  assert [row[:2] for row in trained] == [
    [target, name] for target in ("4", "8") for name in language.SIDES
  ]
  for row in trained:
    assert all(re.fullmatch(r"-?[\d.]+ ± [\d.]+", cell) for cell in row[2:])
    if "BatchTopK" not in row[1]:  # theirs starts its threshold at 0
      assert 0 < float(row[3].split(" ")[0]) < 1  # FVU
  assert len(level) in (0, 3 * len(language.SIDES))
  picked = [row[0] for row in chosen if row[-1] == "chosen"]
  assert picked == list(language.SIDES)
  assert "JumpReLU, ours divided by SAELens' at equal L0" in text


def rows(part):
  lines = [x.strip("|").split("|") for x in part.splitlines() if x[:1] == "|"]
  return [[cell.strip() for cell in line] for line in lines[2:]]
