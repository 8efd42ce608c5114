"""Every figure computed from its definition, in NumPy and float64."""

import functools

import jax
import numpy as np

from jaxsae.lm import Taps, capture
from tests.evals.samples import BOS, EOS


def is_text(batch):
  special = np.isin(batch.tokens, [BOS, EOS])
  return (batch.segments > 0) & ~special


def activations(lm, batches, site):
  """Returns the activations of all text tokens of all batches, [N, D]."""
  found = [_capture(lm, b, site)[is_text(b)] for b in batches]
  return np.concatenate(found)


def latents(sae, x):
  a = as_numpy(sae)
  pre = x @ a["w_enc"] + a["b_enc"]
  found = np.where(pre > a["threshold"], np.maximum(pre, 0), 0)
  if sae.k is not None:
    found[found < np.sort(found)[:, -sae.k, None]] = 0
  return found


def reconstruct(sae, x):
  a = as_numpy(sae)
  made = latents(sae, x) @ a["w_dec"] + a["b_dec"]
  return made if sae.w_skip is None else made + x @ a["w_skip"]


def as_numpy(sae):
  return {k: np.asarray(v, np.float64) for k, v in vars(sae).items()}


def fvu(x, reconstruction):
  error = np.square(x - reconstruction).sum()
  return error / np.square(x - x.mean(axis=0)).sum()


def loss(lm, batches, site=None, replace=None):
  """Returns the mean cross-entropy of next tokens, and their number.

  `replace` maps activations [N, D] of text to what the model reads instead; at
  a pair, those of its input to what is read at its output.
  """
  found = []
  for batch in batches:
    x = None
    written = None
    if site is not None:
      (read_at,), (written,) = Taps.of(site).reads, Taps.of(site).writes
      read = _capture(lm, batch, read_at)
      x = _capture(lm, batch, written)
      text = is_text(batch)
      x[text] = replace(read[text])
      x = x.astype(np.float32)
    logits = np.asarray(_logits(lm, batch, x, written), np.float64)
    found += _losses(logits, batch)
  return np.mean(found), len(found)


def kl(lm, batches, site, replace):
  """Returns the mean KL of next tokens, clean from edited as in `loss`."""
  found = []
  (read_at,), (written,) = Taps.of(site).reads, Taps.of(site).writes
  for batch in batches:
    x = _capture(lm, batch, written)
    text = is_text(batch)
    x[text] = replace(_capture(lm, batch, read_at)[text])
    p = _softmax(_logits(lm, batch, None, None))
    q = _softmax(_logits(lm, batch, x.astype(np.float32), written))
    counted = batch.segments[:, 1:] == batch.segments[:, :-1]
    counted &= batch.segments[:, 1:] > 0
    found.append((p * np.log(p / q)).sum(-1)[:, :-1][counted])
  return np.concatenate(found).mean()


def _softmax(logits):
  z = np.exp(np.asarray(logits, np.float64))
  return z / z.sum(-1, keepdims=True)


def _capture(lm, batch, site):
  return np.array(_captured(lm, batch, site), np.float64)


@functools.partial(jax.jit, static_argnames="site")
def _captured(lm, batch, site):
  return capture(lm, batch.tokens, site, **batch.packing)[site]


@functools.partial(jax.jit, static_argnames="site")
def _logits(lm, batch, value, site):
  """Returns logits, with `value` [B, T, D] at the site if there is one."""

  def tap(where, layer, x):
    here = site is not None and (where, layer) == (site.where, site.layer)
    return value if here else x

  return lm.apply(batch.tokens, batch.segments, batch.positions, tap)


def _losses(logits, batch):
  found = []
  rows, length = batch.tokens.shape
  for row in range(rows):
    for t in range(length - 1):
      here, there = batch.segments[row, t : t + 2]
      if here == there > 0:
        log_sum = np.log(np.exp(logits[row, t]).sum())
        found.append(log_sum - logits[row, t, batch.tokens[row, t + 1]])
  return found
