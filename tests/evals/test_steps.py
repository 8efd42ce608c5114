"""Steps hold every row once, on all devices, and no more than fits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae import mesh as meshes
from jaxsae.evals import steps
from jaxsae.evals.steps import ChunkedSae, in_steps, rows_of_step
from jaxsae.lm import Site
from tests.evals.samples import random_sae, random_transcoder, split


@pytest.mark.parametrize("data", [None, 1, 3, 8])
@pytest.mark.parametrize("batch", [1, 4, 5])
def test_every_row_is_in_one_step(lm, rows, data, batch):
  mesh = None
  if data is not None:
    mesh = meshes.make(meshes.MeshConfig(data=data, model=1))
  lm = lm.replace(mesh=mesh)
  found = list(in_steps(lm, split(rows, batch)))
  shards = data or 1
  size = rows_of_step(lm, batch, rows.tokens.shape[1])
  assert size == shards * max(1, batch // shards)
  assert all(step.text.tokens.shape[0] == size for step in found)
  tokens = np.concatenate([step.text.tokens for step in found])
  segments = np.concatenate([step.text.segments for step in found])
  documents = np.concatenate([step.documents for step in found])
  np.testing.assert_array_equal(documents[: len(rows.tokens)], rows.documents)
  np.testing.assert_array_equal(tokens[: len(rows.tokens)], rows.tokens)
  assert not segments[len(rows.tokens) :].any()  # padding
  assert len(tokens) - len(rows.tokens) < size
  if mesh is not None:
    parts = found[0].text.tokens.addressable_shards
    assert {part.data.shape[0] for part in parts} == {size // shards}


@pytest.mark.parametrize("batch", [1, 5])
def test_segments_are_documents_where_none_are_named(lm, rows, batch):
  batches = split(rows.replace(documents=None), batch)
  documents = np.concatenate([s.documents for s in in_steps(lm, batches)])
  found = documents[: len(rows.tokens)][rows.segments > 0]
  named = rows.documents[rows.segments > 0]
  assert len(set(zip(found, named, strict=True))) == len(set(named))
  assert len(set(found)) == len(set(named))


def test_steps_are_bounded_by_tokens_and_by_what_is_kept(lm, monkeypatch):
  mesh = meshes.make(meshes.MeshConfig(data=4, model=2))
  lm = lm.replace(mesh=mesh)
  monkeypatch.setattr(steps, "_TOKENS", 36)
  assert rows_of_step(lm, 100, 12) == 4 * 3
  sites = [Site("resid", 0), Site("attn", 1)]
  monkeypatch.setattr(steps, "_CAPTURED", 2 * 4 * 12 * (16 + 24))
  assert rows_of_step(lm, 100, 12, sites) == 4 * 2
  assert rows_of_step(lm, 100, 1000, sites) == 4  # a row each at least


@pytest.mark.parametrize("chunk", [1, 5, 100])
@pytest.mark.parametrize("on_mesh", [False, True])
def test_chunks_change_no_reconstruction(monkeypatch, chunk, on_mesh):
  mesh, shards = None, 1
  if on_mesh:
    mesh, shards = meshes.make(meshes.MeshConfig(data=2, model=2)), 2
  monkeypatch.setattr(steps, "_LATENTS", chunk * (4 // shards) * 4 * 32)
  sae = random_transcoder(16, 32, 3)
  x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 7, 16)), jnp.float32)
  chunked = ChunkedSae(sae, mesh)
  found = jax.jit(lambda chunked, x: chunked(x))(chunked, x)
  np.testing.assert_allclose(found, sae(x), rtol=1e-5, atol=1e-5)


def test_few_latents_are_in_memory_at_a_time(monkeypatch):
  d, f, tokens = 8, 4096, 256
  sae, x = random_sae(d, f, 0), jnp.ones((1, tokens, d))
  latents = 4 * tokens * f
  monkeypatch.setattr(steps, "_LATENTS", latents // 16)
  chunked = jax.jit(lambda chunked, x: chunked(x))
  memory = chunked.lower(ChunkedSae(sae, None), x).compile().memory_analysis()
  assert memory.temp_size_in_bytes < latents / 2
