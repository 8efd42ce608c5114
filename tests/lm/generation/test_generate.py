"""A continuation is the same as by full forward passes, token by token."""

import enum
import functools
import gc
import importlib
import re
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxsae import mesh as meshes
from jaxsae.errors import UserError
from jaxsae.lm import Site, Taps, capture, edit, splice
from jaxsae.lm.generation import decode
from jaxsae.lm.generation.generate import generate
from jaxsae.lm.generation.prompts import lay_out, read_prompts
from jaxsae.lm.sharding import placement
from tests.libraries import need

pytestmark = pytest.mark.slow

NAMES = ["grouped", "full", "normed", "single_key"]
ROOM = 48  # columns of every cache here, so that little is compiled
COUNT = 10


@pytest.fixture(scope="module")
def make_lm(tiny):
  """make_lm("full"): makes a tiny model that does not repeat one token.

  With a tied table each token predicts itself, unless the final norm turns
  half of the numbers around and the layers add more than there was.
  """

  def enlarge(path, x):
    name = jax.tree_util.keystr(path)
    if "final_norm" in name:
      signs = np.random.default_rng(0).choice([-1, 1], len(x))
      return jnp.asarray(signs * (1 + x) - 1, jnp.float32)
    return 4 * (1 + x) - 1 if "post_" in name else x

  @functools.cache
  def make(name):
    lm = tiny(name)
    params = jax.tree_util.tree_map_with_path(enlarge, lm.params)
    return lm.replace(params=params)

  return make


@pytest.fixture(scope="module", params=NAMES)
def lm(request, make_lm):
  return make_lm(request.param)


@pytest.fixture(scope="module")
def small(make_lm):
  """Makes the tiny model that compiles fastest."""
  return make_lm("full")


@pytest.fixture(scope="module")
def prompts(draw_tokens):
  """Makes prompts of three lengths; the longest is padded beyond any window."""
  rows = np.asarray(draw_tokens(3, 20)).tolist()
  return [rows[0][:3], rows[1][:11], rows[2]]


def go(lm, prompt, **options):
  return generate(lm, prompt, **{"cache": ROOM, "max_tokens": COUNT} | options)


# The reference: no cache, no padding on the left, one row at a time.


@jax.jit
def full_forward(lm, tokens, edits):
  return edit(lm, tokens, edits)


def by_full_forwards(lm, prompt, edits=None, count=COUNT):
  """Returns the most likely tokens, and the logits [count, V] of each step."""
  row, logits = list(prompt), []
  for _ in range(count):
    tokens = np.array([row + [0] * (ROOM - len(row))], np.int32)
    logits.append(full_forward(lm, tokens, edits or {})[0, len(row) - 1])
    row.append(int(logits[-1].argmax()))
  return row[len(prompt) :], np.stack(logits)


def greedy(lm, prompts, edits=None):
  return [by_full_forwards(lm, prompt, edits)[0] for prompt in prompts]


def test_greedy_is_the_argmax_of_full_forwards(lm, prompts):
  found = go(lm, prompts)
  assert found == greedy(lm, prompts)
  assert all(len(set(row)) > 3 for row in found)  # more than a repeated token


@pytest.fixture
def seen_logits(monkeypatch):
  """Collects all logits [B, V] that tokens are chosen from."""
  seen, choose = [], decode._choose

  def record(logits, *args, **options):
    seen.append(np.asarray(logits))
    return choose(logits, *args, **options)

  monkeypatch.setattr(decode, "_choose", record)
  return seen


def test_cached_logits_are_those_of_full_forwards(lm, prompts, seen_logits):
  go(lm, prompts)
  for i, prompt in enumerate(prompts):
    expected = by_full_forwards(lm, prompt)[1]
    found = np.stack([logits[i] for logits in seen_logits])
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_a_row_does_not_depend_on_the_other_rows(small, prompts, temperature):
  together = go(small, prompts, temperature=temperature)
  for i in range(3):
    others = [prompts[2 - i]] * 3
    others[i] = prompts[i]  # a draw depends on which row it is for
    assert go(small, others, temperature=temperature)[i] == together[i]


def test_padding_does_not_matter(small, prompts):
  """Pads prompts by 29, 13 and 17 columns."""
  together = go(small, prompts)[0]
  assert go(small, [prompts[0]] * 3)[0] == together
  assert go(small, prompts, cache=20 + COUNT)[0] == together


def test_a_cache_is_no_longer_than_the_context(small, prompts):
  given = read_prompts(small, prompts)
  batch = lay_out(small, given, COUNT, cache=10**9)
  assert batch.columns == small.config.context


# The official library.


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["grouped", "normed"])
def test_the_official_sampler_generates_the_same(
  name, make_lm, prompts, as_official
):
  need("gemma")
  from gemma.gm.text import Sampler

  lm = make_lm(name)
  with jax.numpy_rank_promotion("allow"):
    sampler = Sampler(
      model=as_official(lm.config),
      params=lm.params,
      tokenizer=Numbers(),
      cache_length=ROOM,
      max_out_length=COUNT,
      pad_length=16,
    )
    texts = [Numbers().decode(prompt) for prompt in prompts]
    theirs = sampler.sample(texts, max_new_tokens=COUNT)
  ours = go(lm, prompts)
  assert [Numbers().decode(row) for row in ours] == theirs


class Numbers:
  """The official tokenizer's interface to text such as `"12 5 63"`."""

  VERSION = None
  FORBIDDEN_TOKENS = ()
  special_tokens = enum.IntEnum("Special", {"EOS": 98, "END_OF_TURN": 99})

  def encode(self, text, add_bos):
    return [int(word) for word in text.split()]

  def decode(self, ids):
    return " ".join(str(int(i)) for i in ids)


# Edits.

SITE = Site("resid", 0)


def steer(strength, direction, x):
  return x + strength * direction.reshape(1, 1, -1)


@pytest.fixture(scope="module")
def direction():
  return jax.random.normal(jax.random.key(7), (32,))


def test_edits_act_at_every_step(small, prompts, direction):
  edits = {
    SITE: Partial(steer, 2.0, direction),
    Site("attn", 1): Partial(jnp.multiply, 0.5),
    Site("mlp", 1): Partial(jnp.negative),
  }
  found = go(small, prompts, edits=edits)
  assert found == greedy(small, prompts, edits)
  assert found != go(small, prompts)


def test_a_transcoder_acts_at_every_step(small, prompts):
  made = lambda x: jnp.tanh(x[..., ::-1])
  found = go(small, prompts, edits=splice(Taps.transcoder(1), made))
  assert found != go(small, prompts)
  for row, prompt in zip(found, prompts, strict=True):
    assert row == greedy_by_splicing(small, prompt, made)


def greedy_by_splicing(lm, prompt, made):
  """Returns the most likely tokens, with the transcoder applied by hand."""
  site, row = Taps.transcoder(1), list(prompt)

  @jax.jit
  def logits(lm, tokens):
    read = capture(lm, tokens, site.reads[0])[site.reads[0]]
    return edit(lm, tokens, {site.writes[0]: lambda _: made(read)})

  for _ in range(COUNT):
    tokens = np.array([row + [0] * (ROOM - len(row))], np.int32)
    row.append(int(logits(lm, tokens)[0, len(row) - 1].argmax()))
  return row[len(prompt) :]


def test_edits_that_change_nothing_change_nothing(small, prompts):
  plain = go(small, prompts)
  assert go(small, prompts, edits={}) == plain
  assert go(small, prompts, edits={SITE: lambda x: x}) == plain


def test_new_values_of_an_edit_compile_nothing(small, prompts, direction):
  traced = []

  def counted(strength, x):
    traced.append(x.shape)
    return steer(strength, direction, x)

  for i, strength in enumerate([-3.0, 0.0, 3.0]):
    edits = {SITE: Partial(counted, strength)}
    options = {"temperature": i / 2, "seed": i, "max_tokens": COUNT + i}
    go(small, prompts, edits=edits, **options)
  assert traced == [(3, 32, 32), (3, 1, 32)]
  # Shorter prompts are read by another function, and continued by the same.
  short = [prompt[:9] for prompt in prompts]
  go(small, short, edits={SITE: Partial(counted, 1.0)})
  assert traced[2:] == [(3, 16, 32)]


def test_a_plain_function_is_called_anew_in_every_generation(
  small, prompts, direction
):
  """Nothing compiled from a plain function outlives the call."""
  chosen = {"strength": 0.0}
  edits = {SITE: lambda x: steer(chosen["strength"], direction, x)}
  assert go(small, prompts, edits=edits) == go(small, prompts)
  chosen["strength"] = 3.0
  expected = greedy(small, prompts, {SITE: Partial(steer, 3.0, direction)})
  assert go(small, prompts, edits=edits) == expected
  held = weakref.ref(edits.pop(SITE))
  gc.collect()
  assert held() is None


def test_an_edit_in_float32_fits_a_model_in_bfloat16(small, prompts):
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), small)
  widen = Partial(lambda x: x.astype(jnp.float32))
  plain = go(half, prompts)
  assert go(half, prompts, edits={SITE: widen}) == plain


def test_an_edit_that_returns_the_shape_of_the_prompt_is_refused(
  small, prompts
):
  keep = jnp.ones((3, 32, 32))
  with pytest.raises(UserError, match=r"resid\.0 .*\[3, 32, 32\].*\[3, 1,"):
    go(small, prompts, edits={SITE: lambda x: keep})


# Number of compilations.


@pytest.fixture
def compiled(caplog):
  """compiled(function): lists the programs compiled while it runs."""

  def watch(function):
    caplog.clear()
    with jax.log_compiles():
      function()
    started = r"Finished XLA compilation of (\S+) in"
    found = (re.match(started, r.getMessage()) for r in caplog.records)
    return sorted(match[1] for match in found if match)

  return watch


def test_every_shape_is_compiled_once(small, prompts, compiled):
  two = prompts[:2]  # no other test has just two
  prefill, step, choose = "jit(_prefill)", "jit(_step)", "jit(_choose)"
  assert compiled(lambda: go(small, two)) == [choose, prefill, step]
  again = [[9], prompts[2][:16]]
  assert compiled(lambda: go(small, again, max_tokens=2, stop=3)) == []
  assert compiled(lambda: go(small, prompts[1:])) == [prefill]  # longer
  assert compiled(lambda: go(small, prompts[:0:-1])) == []
  assert compiled(lambda: go(small, two, cache=40)) == [prefill, step]
  drawn = lambda p: go(small, two, temperature=1, top_p=p)
  assert compiled(lambda: drawn(0.5)) == [choose]
  assert compiled(lambda: drawn(0.7)) == []


# Meshes.


@pytest.mark.parametrize(
  "name, data, model, rows",
  [
    ("full", 8, 1, 8),
    ("full", 4, 2, 8),
    ("full", 2, 4, 3),
    ("full", 1, 4, 3),
    ("single_key", 2, 4, 4),
  ],
)
def test_every_mesh_generates_the_same(
  name, data, model, rows, make_lm, prompts, direction, compiled
):
  lm = make_lm(name)
  rows = (prompts * 3)[:rows]
  sharded = on_mesh(lm, data, model)
  steered = {SITE: Partial(steer, 1.5, direction)}
  found = go(sharded, rows, edits=steered)
  assert found == (greedy(lm, prompts, steered) * 3)[: len(rows)]
  assert compiled(lambda: go(sharded, rows, edits=steered)) == []


def on_mesh(lm, data, model):
  mesh = meshes.make(meshes.MeshConfig(data, model))
  where = placement(lm.config, mesh)
  put = lambda path, x: jax.device_put(x, where([key.key for key in path]))
  params = jax.tree_util.tree_map_with_path(put, lm.params)
  return lm.replace(params=params, mesh=mesh)


@pytest.mark.parametrize(
  "name, rows, share",
  [("full", 4, (2, ROOM, 1, 16)), ("single_key", 3, (3, ROOM, 1, 16))],
)
def test_each_device_has_its_share_of_the_cache(
  name, rows, share, make_lm, prompts, monkeypatch
):
  caches, forward = [], decode._SHARED[0]

  def watch(*args, **options):
    logits, cache, broken = forward(*args, **options)
    caches.extend(jax.tree.leaves(cache))
    return logits, cache, broken

  monkeypatch.setattr(decode, "_SHARED", (watch, decode._SHARED[1]))
  go(on_mesh(make_lm(name), 2, 4), (prompts * 2)[:rows], max_tokens=1)
  assert {x.addressable_shards[0].data.shape for x in caches} == {share}


# Text. The model is replaced by one that generates given tokens.


@pytest.fixture(scope="module")
def reader(tiny, tokenizer):
  return tiny("full", vocab_size=400).replace(tokenizer=tokenizer)


@pytest.fixture
def script(monkeypatch):
  """script(rows): makes models generate these ids; returns what they read.

  After the end of a row they generate token 5.
  """
  module = importlib.import_module("jaxsae.lm.generation.generate")

  def replace(rows):
    read = []

    def write(lm, batch, edits, sampling, max_tokens):
      read.append((batch, max_tokens))
      for i in range(max_tokens):
        yield np.array([row[i] if i < len(row) else 5 for row in rows])

    monkeypatch.setattr(module, "decode", write)
    return read

  return replace


def test_text_is_read_after_bos_and_written_as_text(reader, script):
  encode, bos = reader.tokenizer.encode, reader.tokenizer.bos
  texts = ["def f():", "", "import os, sys"]
  answers = [" return é", "x = 1", " pass\n"]
  ids = encode(answers)
  length = min(map(len, ids))
  read = script(ids)
  found = generate(reader, texts, max_tokens=length)
  assert found == [reader.tokenizer.decode(row[:length]) for row in ids]
  ((batch, _),) = read
  for row, start, text in zip(*batch_of(batch), texts, strict=True):
    assert row[start:].tolist() == [bos, *encode([text])[0]]
    assert (row[:start] == 0).all()


def test_special_tokens_in_a_prompt_are_themselves(reader, script):
  encode, read = reader.tokenizer.encode, script([[7]] * 3)
  said = encode(["hi"])[0]
  generate(reader, ["<bos>hi", "hi", "hi<eos><bos>hi"], max_tokens=1)
  ((batch, _),) = read
  rows = [row[n:].tolist() for row, n in zip(*batch_of(batch), strict=True)]
  assert rows == [[2, *said], [2, *said], [2, *said, 1, 2, *said]]


def batch_of(batch):
  return batch.tokens, batch.padding


def test_the_result_has_the_form_of_the_prompt(reader, script):
  script([[7, 8, 9]])
  one = {"max_tokens": 3}
  text = reader.tokenizer.decode([7, 8, 9])
  assert generate(reader, "a", **one) == text
  assert generate(reader, ["a"], **one) == [text]
  assert generate(reader, [4, 5], **one) == [7, 8, 9]
  assert generate(reader, np.array([4, 5]), **one) == [7, 8, 9]
  assert generate(reader, [[4, 5]], **one) == [[7, 8, 9]]
  assert generate(reader, jnp.array([[4, 5]]), **one) == [[7, 8, 9]]
  assert type(generate(reader, [4], **one)[0]) is int


@pytest.mark.parametrize("prompt", ["text", [4, 5]], ids=["text", "ids"])
def test_a_real_model_continues_text(reader, prompt):
  found = generate(reader, prompt, max_tokens=3)
  assert type(found) is type(prompt)


# Stops.


def test_each_row_stops_at_its_own_stop_token(reader, script):
  eos = reader.tokenizer.eos
  read = script([[7, 8, eos, 9], [eos, 7], [7, 30, 9, 9]])
  prompts = [[4], [4], [4]]
  assert generate(reader, prompts, max_tokens=9, stop=30) == [[7, 8], [], [7]]
  assert generate(reader, prompts, max_tokens=3)[2] == [7, 30, 9]
  assert [count for _, count in read] == [9, 3]


def test_nothing_runs_when_all_have_stopped(small, prompts, seen_logits):
  first = go(small, prompts)
  stops = [row[2] for row in first]
  steps = max(next(i for i, t in enumerate(r) if t in stops) for r in first)
  del seen_logits[:]
  found = go(small, prompts, stop=stops)
  assert all(not set(row) & set(stops) for row in found)
  assert len(seen_logits) == steps + 1


@pytest.mark.parametrize("stop", ["\n", ["\n"], ["7", "\n"]], ids=repr)
def test_stop_may_be_text(reader, script, stop):
  script(reader.tokenizer.encode(["x\ny"]))
  assert generate(reader, "a", max_tokens=9, stop=stop) == "x"


def test_the_end_of_a_turn_stops_a_row(reader, script):
  tuned = reader.replace(tokenizer=Turns(reader.tokenizer))
  script([[7, 399, 8]])
  assert generate(tuned, [4], max_tokens=3) == [7]
  assert generate(reader, [4], max_tokens=3) == [7, 399, 8]


def test_tokens_that_end_a_turn_by_the_files_stop_a_row(reader, script):
  tuned = reader.replace(ends=(30, 31))
  script([[7, 31, 8], [30, 7, 7]])
  assert generate(tuned, [[4], [4]], max_tokens=3) == [[7], []]
  assert generate(tuned.replace(tokenizer=None), [[4], [4]]) == [[7], []]


class Turns:
  """A tokenizer whose last piece is `<end_of_turn>`."""

  def __init__(self, tokenizer):
    self.eos = tokenizer.eos
    self.pieces = [*tokenizer.pieces[:-1], "<end_of_turn>"]

  def id_of(self, text):
    return 399 if text == "<end_of_turn>" else None


# Streaming.


def test_the_streamed_pieces_add_up_to_the_result(reader, script):
  # Both end in the middle of a character, one of them for good.
  ids = reader.tokenizer.encode(["aé☃b = 1 €", "€ x"])
  eos = reader.tokenizer.eos
  script([[*ids[0][:-1], eos], [*ids[1][:2], eos, 9]])
  told = []
  found = generate(reader, ["", ""], max_tokens=99, stream=told.append)
  assert ["".join(row) for row in zip(*told, strict=True)] == found
  assert found[0].startswith("aé☃b = 1 ")
  assert found[0].endswith("\ufffd")
  # The first row's pieces are whole characters, until it ends in half of one.
  pieces = [row for row, _ in told]
  assert "\ufffd" not in "".join(pieces[:-1])
  assert len(pieces) == len(ids[0])
  assert pieces.count("") > 2  # the bytes of é, ☃ and € came one by one
  assert all(row == "" for _, row in told[3:])


def test_any_ids_stream_as_they_are_written(reader, script):
  rng = np.random.default_rng(0)
  # Bytes of all kinds among other tokens, and none of the stop tokens.
  rows = rng.choice([*range(4, 262)] * 3 + [*range(2, 400)], (20, 30)).tolist()
  script(rows)
  told = []
  found = generate(reader, [""] * 20, max_tokens=30, stream=told.append)
  assert ["".join(row) for row in zip(*told, strict=True)] == found
  assert found == [reader.tokenizer.decode(row) for row in rows]


def test_streams_have_the_form_of_the_result(reader, script):
  script([[7, 8, 9]])
  told = []
  generate(reader, "a", max_tokens=2, stream=told.append)
  generate(reader, [4], max_tokens=2, stream=told.append)
  generate(reader, [[4]], max_tokens=2, stream=told.append)
  decode = reader.tokenizer.decode
  assert told == [decode([7]), decode([8]), [7], [8], [[7]], [[8]]]


# Mistakes.


@pytest.mark.parametrize(
  "prompt, options, said",
  [
    ([1] * 39, {}, r"39 .*max_tokens=10 do not fit the cache of 48; .*=9\.$"),
    (
      [[1], [1] * 60],
      {},
      r"Prompt 1 of 60 .* cache of 48; .* shorter prompt\.$",
    ),
    (
      [1] * 500,
      {"cache": None, "max_tokens": 13},
      r"of 500 .* context of 512; .* or max_tokens=12\.$",
    ),
    ([1] * 510, {"cache": 4096}, "context of 512"),
    ([1], {"cache": 0}, "cache=0"),
    ([1], {"cache": "x"}, "cache='x'"),
    ([1], {"cache": 48.5}, r"cache=48\.5"),
    ([1], {"max_tokens": True}, "max_tokens=True"),
    ([1], {"temperature": "x"}, "temperature='x'"),
    ([1], {"temperature": None}, "temperature=None"),
    ([1], {"temperature": 1.0, "top_p": "x"}, "top_p='x'"),
    ([1], {"temperature": 1.0, "top_k": True}, "top_k=True"),
    ([1], {"stop": None}, "stop=None"),
    ([1], {"stop": [5.5]}, r"stop=5\.5"),
    ([1], {"stop": True}, "stop=True"),
    ([1], {"stream": 5}, "stream=5"),
    ([1], {"edits": [1]}, r"\[1\] are not a mapping"),
    (None, {}, r"None \(NoneType\) is not a prompt; give text"),
    (5, {}, r"5 \(int\) is not a prompt"),
    (1.5, {}, r"1\.5 \(float\) is not a prompt"),
    (True, {}, r"True \(bool\) is not a prompt"),
    (b"abc", {}, r"b'abc' \(bytes\) is not a prompt"),
    ({"a": 1}, {}, r"\(dict\) is not a prompt"),
    ({1, 2}, {}, r"\(set\) is not a prompt"),
    (iter([1]), {}, "is not a prompt"),
    (np.array(5), {}, r"5 \(ndarray\) is not a prompt"),
    ([None], {}, "Prompt 0 is neither"),
    ([4, "a"], {}, "Prompt 0 is neither"),
    ([[4], [5, [6]]], {}, "Prompt 1 is neither"),
    ([2**70], {}, "Prompt 0 is neither"),
    ([1], {"max_tokens": 0}, "max_tokens=0"),
    ([1], {"max_tokens": 2.5}, r"max_tokens=2\.5"),
    ([4, 64], {}, "Token 64 is not in the vocabulary .* 0 to 63"),
    ([4, -1], {}, "Token -1 is not"),
    ([2**40], {}, "Token 1099511627776 is not"),
    ([4], {"stop": 64}, "Token 64 is not"),
    ([[4], []], {}, "Prompt 1 is empty"),
    ([], {}, "0 prompts"),
    (["a", [4]], {}, "2 prompts, 1 of them text"),
    ([[4.5]], {}, "Prompt 0 is neither"),
    ([[[4]]], {}, "Prompt 0 is neither"),
    ("a", {}, "The language model has no tokenizer .* token ids"),
    ([4], {"stop": "a"}, "no tokenizer"),
    ([4], {"edits": {Site("mlp", 2): abs}}, r"mlp\.2 is out of range"),
    ([4], {"temperature": -1.0}, "temperature=-1"),
    ([4], {"top_k": 0}, "top_k=0"),
    ([4], {"top_p": 2}, "top_p=2"),
    ([4], {"seed": "x"}, "seed=x"),
  ],
  ids=lambda x: x if isinstance(x, str) else "",
)
def test_mistakes_are_one_sentence(small, prompt, options, said):
  with pytest.raises(UserError, match=said):
    go(small, prompt, **options)


def test_a_stop_of_several_tokens_is_named(reader):
  with pytest.raises(
    UserError, match=r"stop='\\n\\n\\n!' is not a single token"
  ):
    generate(reader, "a", stop="\n\n\n!")


@pytest.mark.parametrize("text", ["a\ud800", "\udfff b"])
def test_half_of_a_character_is_named(reader, text):
  half = re.search("[\ud800-\udfff]", text)[0]
  for go in (
    lambda: generate(reader, text),
    lambda: generate(reader, ["a", text]),
    lambda: generate(reader, "a", stop=text),
  ):
    with pytest.raises(UserError, match="half of a character") as raised:
      go()
    assert ascii(half) in str(raised.value)
    str(raised.value).encode()  # a terminal can show it
  assert "as does text.encode(errors='ignore').decode()" in str(raised.value)
  generate(reader, text.encode(errors="ignore").decode(), max_tokens=1)
