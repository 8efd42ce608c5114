"""Qwen Scope's files are read as its example computes them."""

import numpy as np
import pytest

from jaxsae import formats, load_sae, load_saes
from jaxsae.errors import UserError
from jaxsae.formats import format_of
from jaxsae.lm import Site, Taps
from tests.libraries import need

torch = need("torch")

D, F, K = 6, 24, 3
REPOSITORY = f"SAE-Res-Qwen3-1.7B-Base-W32K-L0_{K}"


def state(seed=0):
  draw = np.random.default_rng(seed).normal
  made = {
    "W_enc": draw(size=(F, D)),
    "b_enc": draw(size=F),
    "W_dec": draw(size=(D, F)),
    "b_dec": draw(size=D),
  }
  return {name: torch.tensor(x.astype(np.float32)) for name, x in made.items()}


@pytest.fixture
def saved(tmp_path):
  """`saved(…)`: a repository's folder with two layers."""

  def of(folder=REPOSITORY, **changes):
    top = tmp_path / folder
    top.mkdir(parents=True)
    for layer in (0, 11):
      torch.save(state(layer) | changes, top / f"layer{layer}.sae.pt")
    return top

  return of


def test_it_computes_what_the_example_does(saved):
  ours = load_sae(saved() / "layer11.sae.pt")
  s = state(11)
  x = torch.tensor(
    np.random.default_rng(1).normal(size=(50, D)), dtype=s["b_enc"].dtype
  )
  pre = x @ s["W_enc"].T + s["b_enc"]
  values, places = pre.topk(K, dim=-1)
  latents = torch.zeros_like(pre).scatter_(-1, places, values)
  assert (values > 0).all()
  np.testing.assert_allclose(ours.encode(x.numpy()), latents, atol=1e-5)
  x_hat = latents @ s["W_dec"].T + s["b_dec"]
  np.testing.assert_allclose(ours(x.numpy()), x_hat, atol=2e-5)


def test_names_tell_the_site_and_k(saved):
  file = saved() / "layer11.sae.pt"
  found = format_of(file).read(file)
  assert found.taps == Taps.of(Site("resid", 11))
  assert found.metrics == {"l0": K} and found.sae.k == K


def test_k_is_that_of_the_nearest_folder(saved):
  folder = saved("models--Qwen--SAE-Res-X-W1K-L0_9/snapshots/0a1b/L0_2/deeper")
  assert load_sae(folder / "layer0.sae.pt").k == 2


def test_each_file_of_a_folder_is_an_autoencoder(saved, tmp_path):
  folder = saved()
  (folder / "README.md").write_text("other files are left alone")
  assert list(load_saes(folder)) == ["layer0.sae.pt", "layer11.sae.pt"]
  assert list(load_saes(folder.parent)) == [
    f"{REPOSITORY}/layer0.sae.pt",
    f"{REPOSITORY}/layer11.sae.pt",
  ]
  with pytest.raises(UserError, match=r"layer0\.sae\.pt \(one of 2 below\)"):
    load_sae(folder)
  written = [*formats.convert([folder], "sae_lens", tmp_path / "out")]
  assert len(written) == 2
  names = sorted(load_saes(tmp_path / "out"))
  assert names == [f"resid.{n}/width_{F}/l0_{K}" for n in (0, 11)]


@pytest.mark.parametrize(
  ("folder", "changes", "told"),
  [
    ("anything", {}, "k; put it"),
    ("L0_25", {}, "k=25"),
    ("L0_0", {}, "k=0"),
    (REPOSITORY, {"b_dec": torch.ones(F)}, "b_dec"),
    (REPOSITORY, {"W_enc": torch.ones(F)}, "W_enc"),
    (REPOSITORY, {"threshold": torch.ones(F)}, "threshold"),
    (REPOSITORY, {"b_enc": torch.full((F,), np.inf)}, "b_enc"),
  ],
)
def test_a_damaged_file_is_one_sentence(saved, folder, changes, told):
  file = saved(folder, **changes) / "layer0.sae.pt"
  with pytest.raises(UserError) as refused:
    load_sae(file)
  assert told in str(refused.value) and str(file) in str(refused.value)
  assert "\n" not in str(refused.value)
