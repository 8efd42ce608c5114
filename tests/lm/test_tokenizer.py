"""Tokenizers restore texts exactly, and fit their model."""

import dataclasses
import json
import sys

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from jaxsae.errors import UserError
from jaxsae.lm import Tokenizer, gemma2_tiny, load_lm, save_lm, train_tokenizer
from jaxsae.lm.tokenizer import SentencePiece, find_tokenizer
from jaxsae.lm.tokenizer_files import choose

CODE = (
  "class A:\n\tdef f(self):\n        return  'x' * 10   # naïve → 数\r\n\n\n"
)


# As a SentencePiece file.


# SentencePiece writes a space as ▁ inside, so that one is not its own.
@hypothesis.given(st.text(max_size=40).filter(lambda text: "▁" not in text))
def test_decoding_restores_any_text(tokenizer, text):
  (ids,) = tokenizer.encode([text])
  assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
  "text",
  [CODE, "", " ", "   ", " a", "a ", "\n ", "\t\t", "é", "e\u0301", "\ufeffx"],
)
def test_decoding_restores_spaces_and_accents(tokenizer, text):
  (ids,) = tokenizer.encode([text])
  assert tokenizer.decode(ids) == text


def test_special_ids_are_gemmas(tokenizer):
  ids = (tokenizer.pad, tokenizer.eos, tokenizer.bos)
  assert ids == (0, 1, 2)
  assert tokenizer.pieces[:4] == ["<pad>", "<eos>", "<bos>", "<unk>"]


def test_no_text_makes_a_special_token(tokenizer):
  for ids in tokenizer.encode(["<pad><eos><bos><unk>", "<s></s>", CODE, "☃"]):
    assert ids and min(ids) > 3


def test_every_id_is_a_piece(tokenizer):
  assert tokenizer.vocab_size == len(tokenizer.pieces) == 400
  (ids,) = tokenizer.encode([CODE])
  assert max(ids) < 400


def test_digits_are_split_and_indents_are_not(tokenizer):
  (ids,) = tokenizer.encode(["    1234"])
  assert [tokenizer.pieces[i] for i in ids] == ["    ", "1", "2", "3", "4"]


def test_texts_are_encoded_independently(tokenizer):
  texts = [CODE, "the latent", "", "x"]
  alone = [tokenizer.encode([text])[0] for text in texts]
  assert tokenizer.encode(texts) == alone


def test_training_twice_gives_the_same(tokenizer):
  texts = [CODE, "the latent of a site", "0123456789"] * 20
  one, two = (train_tokenizer(texts, vocab_size=300) for _ in range(2))
  assert one.model == two.model
  assert one.fingerprint == two.fingerprint != tokenizer.fingerprint


def test_a_tokenizer_loads_from_its_file(tokenizer, tmp_path):
  (tmp_path / "tokenizer.model").write_bytes(tokenizer.model)
  loaded = Tokenizer.load(tmp_path / "tokenizer.model")
  assert loaded.fingerprint == tokenizer.fingerprint
  assert loaded.encode([CODE]) == tokenizer.encode([CODE])


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 100])
def test_what_is_not_a_tokenizer_is_named(tmp_path, content):
  (tmp_path / "tokenizer.model").write_bytes(content)
  with pytest.raises(UserError, match=r"tokenizer\.model is not a Sentence"):
    Tokenizer.load(tmp_path / "tokenizer.model")


def test_a_truncated_file_that_can_still_be_parsed_is_refused(
  tokenizer, tmp_path
):
  """The list of special pieces comes after the pieces."""
  read = 0
  for keep in range(200):
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.model[:keep])
    with pytest.raises(UserError, match=r"not a Sentence|has no BOS") as error:
      Tokenizer.load(tmp_path / "tokenizer.model")
    read += "BOS" in str(error.value)
  assert read


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(UserError, match=r"nothing\.json is not a file; give a"):
    Tokenizer.load(tmp_path / "nothing.json")
  with pytest.raises(UserError, match="is not a file"):
    Tokenizer.load(tmp_path)


# As a Hugging Face file.

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]


@pytest.fixture(scope="module")
def converted(tokenizer):
  """Converts the tokenizer to the JSON of the package `tokenizers`.

  Like Gemma's it puts BOS before each text; it also cuts and pads, which
  others' may.
  """
  vocab = {
    tokenizer._piece(i): i for i in range(tokenizer.vocab_size) if i >= 0
  }
  learned = [p for p, i in vocab.items() if i >= 262]  # after the bytes
  merges = [
    (piece[:cut], piece[cut:])
    for piece in learned
    for cut in range(1, len(piece))
    if {piece[:cut], piece[cut:]} <= set(learned)
  ]
  model = tokenizers.models.BPE(
    vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
  )
  made = tokenizers.Tokenizer(model)
  made.normalizer = tokenizers.normalizers.Replace(" ", "▁")
  made.decoder = tokenizers.decoders.Sequence(
    [
      tokenizers.decoders.Replace("▁", " "),
      tokenizers.decoders.ByteFallback(),
      tokenizers.decoders.Fuse(),
    ]
  )
  made.post_processor = tokenizers.processors.TemplateProcessing(
    single="<bos> $A", special_tokens=[("<bos>", 2)]
  )
  made.add_special_tokens(SPECIAL)
  made.add_tokens(["\n", "\t"])
  made.enable_truncation(5)
  made.enable_padding(length=5)
  return json.loads(made.to_str())


@pytest.fixture
def from_json(tmp_path):
  """from_json(data): the tokenizer loaded from a file of this JSON."""

  def load(data):
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    return Tokenizer.load(tmp_path / "tokenizer.json")

  return load


@pytest.fixture(scope="module")
def json_tokenizer(converted, tmp_path_factory):
  """Loads the converted tokenizer."""
  file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
  file.write_text(json.dumps(converted))
  return Tokenizer.load(file)


@hypothesis.given(st.text(max_size=40))
def test_both_files_give_the_same_ids(tokenizer, json_tokenizer, text):
  ids = tokenizer.encode([text, text + CODE])
  assert json_tokenizer.encode([text, text + CODE]) == ids
  assert json_tokenizer.decode(ids[0]) == tokenizer.decode(ids[0])


# Single bytes, which stand for parts of characters, and any id, in use or not.
STREAMS = st.lists(st.integers(4, 261) | st.integers(-2, 402), max_size=16)


@hypothesis.given(STREAMS, st.lists(st.integers(0, 16)))
def test_any_ids_decode_the_same_by_both_files_at_once_or_in_parts(
  tokenizer, json_tokenizer, ids, cuts
):
  text = tokenizer.decode(ids)
  assert json_tokenizer.decode(ids) == text
  for found in (tokenizer, json_tokenizer):
    decoder, ends = found.decoder(), sorted(cuts)
    parts = [ids[i:j] for i, j in zip([0, *ends], [*ends, None], strict=True)]
    streamed = "".join(decoder.add(part) for part in parts)
    assert streamed + decoder.end() == text


@hypothesis.given(st.lists(st.integers(4, 261) | st.integers(0, 399)))
def test_any_ids_decode_as_by_sentencepiece(tokenizer, ids):
  assert tokenizer.decode(ids) == tokenizer._pieces.Decode(ids)


@pytest.mark.parametrize("kind", ["tokenizer", "json_tokenizer"])
def test_half_a_surrogate_pair_is_named(kind, request):
  tokenizer = request.getfixturevalue(kind)
  for encode in (tokenizer.encode, tokenizer.encode_prompts):
    with pytest.raises(UserError, match=r"'\\ud800' at character 2"):
      encode(["fine", "ab\ud800"])


@pytest.mark.parametrize("kind", ["tokenizer", "json_tokenizer"])
def test_one_text_is_not_a_list_of_texts(kind, request):
  tokenizer = request.getfixturevalue(kind)
  for encode in (tokenizer.encode, tokenizer.encode_prompts):
    for given in ("abc", b"abc", None, 5, ["a", None], ["a", 1]):
      with pytest.raises(UserError, match=r"is not a list of texts; .*\['a t"):
        encode(given)
    assert encode([]) == []
    assert encode(("a", "b")) == encode(["a", "b"])


@pytest.mark.parametrize("ids", ["abc", [[5, 6]], [None], 5, None, np.eye(2)])
def test_what_is_not_one_row_of_ids_is_not_decoded(tokenizer, ids):
  with pytest.raises(UserError, match="is not one row of token ids"):
    tokenizer.decode(ids)


@pytest.mark.parametrize("kind", ["tokenizer", "json_tokenizer"])
def test_half_a_character_does_not_harm_those_before_it(kind, request):
  found = request.getfixturevalue(kind)
  ids = [byte(found, b) for b in "é€😀".encode()[:-1]]
  assert found.decode(ids) == "é€\ufffd\ufffd\ufffd"
  decoder = found.decoder()
  assert [decoder.add([i]) for i in ids] == ["", "é", "", "", "€", "", "", ""]
  # A character does not reach over another token.
  assert found.decode([ids[0], found.bos, ids[1]]) == "\ufffd\ufffd"
  assert decoder.add(found.encode(["x"])[0]) == "\ufffd\ufffd\ufffdx"


def byte(tokenizer, value):
  """Returns the id of the piece that stands for a byte."""
  return tokenizer.pieces.index(f"<0x{value:02X}>")


def test_both_files_have_the_same_properties(tokenizer, json_tokenizer):
  for name in ("bos", "eos", "pad", "vocab_size", "pieces"):
    assert getattr(json_tokenizer, name) == getattr(tokenizer, name)
  assert (
    json_tokenizer.decode([2, *json_tokenizer.encode([CODE])[0], 1]) == CODE
  )
  assert json_tokenizer.file_name == "tokenizer.json"
  assert json_tokenizer.fingerprint != tokenizer.fingerprint


def test_special_tokens_written_in_text_are_text(json_tokenizer):
  """Except for `<start_of_turn>`, which SentencePiece treats as special too."""
  for ids in json_tokenizer.encode(["<pad><eos><bos><unk>", "<s></s>"]):
    assert ids and min(ids) > 3


def test_other_tokens_with_a_name_are_read_and_written(converted, from_json):
  turn = named(400, "<start_of_turn>")
  added = [*converted["added_tokens"], turn]
  found = from_json(converted | {"added_tokens": added})
  assert found.vocab_size == 401
  (ids,) = found.encode(["a<start_of_turn>b"])
  assert ids[1] == 400 and len(ids) == 3
  assert found.decode(ids) == "a<start_of_turn>b"


def test_the_token_for_an_image_is_left_out(converted, from_json):
  picture = named(400, "<image_soft_token>")
  added = [*converted["added_tokens"], picture]
  found = from_json(converted | {"added_tokens": added})
  assert found.vocab_size == 400
  (ids,) = found.encode(["<image_soft_token>"])
  assert max(ids) < 400


def named(token, content):
  """Returns a token in the form of published files."""
  flags = dict.fromkeys(
    ["single_word", "lstrip", "rstrip", "normalized"], False
  )
  return {"id": token, "content": content, "special": True, **flags}


def test_a_json_tokenizer_is_saved_under_its_own_name(
  json_tokenizer, grouped, tmp_path
):
  table = jnp.ones((400, grouped.config.embed_dim))
  lm = grouped.replace(
    params=grouped.params | {"embedder": {"input_embedding": table}},
    config=dataclasses.replace(grouped.config, vocab_size=400),
    tokenizer=json_tokenizer,
  )
  save_lm(lm, tmp_path / "lm")
  assert (
    tmp_path / "lm" / "tokenizer.json"
  ).read_bytes() == json_tokenizer.model
  assert (
    load_lm(tmp_path / "lm").tokenizer.fingerprint == json_tokenizer.fingerprint
  )


@pytest.mark.parametrize("missing", ["<bos>", "<pad>"])
def test_a_json_tokenizer_without_gemmas_special_tokens(
  converted, from_json, missing
):
  text = json.dumps(converted).replace(missing, "[X]")
  name = missing.strip("<>").upper()
  with pytest.raises(UserError, match=rf"tokenizer\.json has no {name} token"):
    from_json(json.loads(text))


@pytest.mark.parametrize(
  "content",
  [b"", b"{", b"\xff", b"[]", b"3", b"{}", b'{"added_tokens": 3}', b"[" * 9999],
)
def test_a_json_that_is_not_a_tokenizer(tmp_path, content):
  (tmp_path / "tokenizer.json").write_bytes(content)
  with pytest.raises(UserError, match=r"tokenizer\.json is not a Hugging Face"):
    Tokenizer.load(tmp_path / "tokenizer.json")


def test_without_the_package_the_error_says_what_to_install(
  converted, from_json, monkeypatch
):
  monkeypatch.setitem(sys.modules, "tokenizers", None)
  with pytest.raises(UserError, match=r'pip install "jaxsae\[huggingface\]"'):
    from_json(converted)


# Both.


@pytest.mark.parametrize("kind", ["tokenizer", "json_tokenizer"])
def test_unused_ids_are_shown(kind, request):
  found = request.getfixturevalue(kind)
  ids = [400, *found.encode(["the cat"])[0], 2**33, -1]
  assert (
    found.decode(ids) == "<unused 400>the cat<unused 8589934592><unused -1>"
  )
  assert found.decode(np.array(ids)) == found.decode(ids)
  assert found.decode([]) == ""


@pytest.mark.parametrize("kind", ["tokenizer", "json_tokenizer"])
@hypothesis.given(
  st.lists(st.sampled_from([*SPECIAL, "a b", "\n", "é", "<b", "os>", " "]))
)
def test_special_tokens_are_read_in_prompts_as_by_hugging_face(
  request, converted, kind, parts
):
  found, text = request.getfixturevalue(kind), "".join(parts)
  theirs = tokenizers.Tokenizer.from_str(json.dumps(converted))
  theirs.no_truncation()
  theirs.no_padding()
  ids = theirs.encode(text, add_special_tokens=False).ids
  (prompt,) = found.encode_prompts([text])
  assert prompt == (ids if ids[:1] == [2] else [2, *ids])
  assert not {0, 1, 2, 3} & set(found.encode([text])[0])  # not in a corpus


@pytest.mark.parametrize("kind", ["tokenizer", "json_tokenizer"])
def test_single_tokens_are_found_by_text_or_name(kind, request):
  found = request.getfixturevalue(kind)
  names = {text: found.id_of(text) for text in (*SPECIAL, "\n", "    ", "x")}
  assert list(names.values())[:4] == [0, 1, 2, 3]
  assert all(found.pieces[i] == text for text, i in names.items())
  for text in ("", "x = 1;", "☃", "<bos><eos>", "<end_of_turn>"):
    assert found.id_of(text) is None


# Beside a model.


def model_of(rows):
  return dataclasses.replace(gemma2_tiny(), vocab_size=rows)


@pytest.fixture
def folder(tokenizer, tmp_path):
  (tmp_path / "tokenizer.model").write_bytes(tokenizer.model)
  return tmp_path


def test_a_tokenizer_is_found_by_folder_or_file(folder, tokenizer):
  for path in (folder, folder / "tokenizer.model", str(folder)):
    found = find_tokenizer(path, model_of(400))
    assert found.fingerprint == tokenizer.fingerprint


def test_a_folder_without_a_tokenizer_has_none(tmp_path):
  assert find_tokenizer(tmp_path, model_of(400)) is None


def test_sentencepiece_comes_first(folder, converted):
  (folder / "tokenizer.json").write_text(json.dumps(converted))
  assert isinstance(find_tokenizer(folder, model_of(400)), SentencePiece)
  (folder / "tokenizer.model").unlink()
  found = find_tokenizer(folder, model_of(400))
  assert found.file_name == "tokenizer.json"


def test_every_id_of_the_model_is_a_piece(folder, tokenizer):
  found = find_tokenizer(folder, model_of(450))
  assert found.vocab_size == 400
  assert found.pieces[:400] == tokenizer.pieces
  assert found.pieces[400:] == [f"<unused {i}>" for i in range(400, 450)]


def test_as_many_rows_as_published_models_round_up_to_are_fine(folder):
  find_tokenizer(folder, model_of(400 + 128))
  with pytest.raises(UserError, match=r"model has 400 pieces, far fewer than"):
    find_tokenizer(folder, model_of(400 + 129))
  with pytest.raises(UserError, match=r"400 pieces, more than .*size=399"):
    find_tokenizer(folder, model_of(399))


@pytest.mark.parametrize(
  "published, rows, fits",
  [
    (256_000, 256_128, True),  # Gemma 2
    (262_144, 262_208, True),  # Gemma 3
    (256_000, 262_144, False),
    (262_144, 256_128, False),
    (32_000, 256_000, False),
  ],
)
def test_the_tokenizer_of_another_model_is_refused(
  folder, monkeypatch, published, rows, fits
):
  load = Tokenizer.load

  def enlarged(path):
    found = load(path)
    found.vocab_size = published
    return found

  monkeypatch.setattr(Tokenizer, "load", enlarged)
  if fits:
    assert find_tokenizer(folder, model_of(rows)).num_ids == rows
  else:
    with pytest.raises(UserError, match="belongs to another model"):
      find_tokenizer(folder, model_of(rows))


@pytest.mark.parametrize(
  "config",
  [
    {},
    {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0},
    {"bos_token_id": None, "eos_token_id": [1, 106]},
  ],
)
def test_config_may_name_the_special_tokens(folder, config):
  (folder / "config.json").write_text(json.dumps(config))
  assert find_tokenizer(folder, model_of(400)) is not None


@pytest.mark.parametrize("where", ["config.json", "text_config"])
@pytest.mark.parametrize(
  "given, eos, pad",
  [
    ({"eos": 5}, 5, 0),
    ({"eos": [5, 106]}, 5, 0),
    ({"eos": [106, 1]}, 1, 0),  # its own stays
    ({"eos": [], "pad": 3}, 1, 3),
    ({"eos": 399, "pad": 399}, 399, 399),
    ({"pad": 420}, 1, 420),  # a row of the table without a piece
  ],
)
def test_eos_and_pad_are_those_of_the_config(folder, where, given, eos, pad):
  config = {f"{name}_token_id": ids for name, ids in given.items()}
  if where == "text_config":
    config = {"text_config": config, "eos_token_id": None}
  (folder / "config.json").write_text(json.dumps(config))
  found = find_tokenizer(folder, model_of(450))
  assert (found.bos, found.eos, found.pad) == (2, eos, pad)


def test_the_config_is_that_of_the_weights(folder, tmp_path_factory):
  """Where the tokenizer is elsewhere, what lies beside it says nothing."""
  weights = tmp_path_factory.mktemp("weights")
  for path, eos in ((folder, 7), (weights, 5)):
    (path / "config.json").write_text(json.dumps({"eos_token_id": eos}))
  for path in (folder, folder / "tokenizer.model"):
    found = find_tokenizer(path, model_of(400), weights)
    assert found.eos == 5


@pytest.mark.parametrize(
  "name, value",
  [
    ("bos", 1),
    ("bos", 400),
    ("eos", [1, 400]),
    ("eos", "<eos>"),
    ("eos", {"id": 1}),
    ("pad", -1),
    ("pad", True),
    ("pad", 0.0),
  ],
)
def test_ids_that_are_not_the_models_are_refused(folder, name, value):
  file = folder / "config.json"
  file.write_text(json.dumps({f"{name}_token_id": value}))
  with pytest.raises(UserError) as error:
    find_tokenizer(folder, model_of(400))
  said = str(error.value)
  assert f"{name}_token_id" in said and str(file) in said and str(value) in said
  file.write_text("{}")  # as the message says
  assert find_tokenizer(folder, model_of(400)) is not None


# Two files about one thing.


@pytest.fixture
def add(folder, converted):
  """add({400: "<think>"}): writes a tokenizer.json that names more tokens."""

  def write(tokens):
    named_so = [named(i, text) for i, text in tokens.items()]
    kept = [t for t in converted["added_tokens"] if t["id"] not in tokens]
    vocab = {
      piece: i
      for piece, i in converted["model"]["vocab"].items()
      if i not in tokens
    }
    merges = [m for m in converted["model"]["merges"] if "".join(m) in vocab]
    model = converted["model"] | {"vocab": vocab, "merges": merges}
    data = converted | {"added_tokens": kept + named_so, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(data))

  return write


def test_the_file_with_added_tokens_is_taken(folder, add):
  add({400: "<think>", 401: "</think>"})
  found = find_tokenizer(folder, model_of(402))
  assert found.file_name == "tokenizer.json"
  assert found.encode(["<think>"]) == [[400]]
  # Rows that the model lacks are nothing that it must know.
  found = find_tokenizer(folder, model_of(400))
  assert found.file_name == "tokenizer.model"


def test_a_picture_is_no_added_token(folder, add):
  add({400: "<image_soft_token>"})
  found = find_tokenizer(folder, model_of(464))
  assert found.file_name == "tokenizer.model"


def test_a_sentencepiece_that_knows_more_is_taken(folder, converted):
  vocab = {p: i for p, i in converted["model"]["vocab"].items() if i < 399}
  lost = next(p for p, i in converted["model"]["vocab"].items() if i == 399)
  merges = [m for m in converted["model"]["merges"] if "".join(m) != lost]
  model = converted["model"] | {"vocab": vocab, "merges": merges}
  (folder / "tokenizer.json").write_text(
    json.dumps(converted | {"model": model})
  )
  found = find_tokenizer(folder, model_of(400))
  assert found.file_name == "tokenizer.model"


def test_the_two_ways_to_write_a_tab_are_one(folder, converted, tokenizer):
  text = json.dumps(converted).replace("<0x0D>", "\\r")
  (folder / "tokenizer.json").write_text(text)
  found = find_tokenizer(folder, model_of(400))
  assert found.fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("token", [{399: "<think>"}, {399: "x", 400: "<y>"}])
def test_files_that_contradict_each_other_are_refused(folder, add, token):
  add(token)
  with pytest.raises(UserError) as error:
    find_tokenizer(folder, model_of(401))
  said = str(error.value)
  assert "tokenizer.model" in said and "tokenizer.json" in said
  assert "399" in said and token[399] in said
  (folder / "tokenizer.model").unlink()  # as the message says
  find_tokenizer(folder, model_of(401))


def test_a_name_in_the_place_of_an_unused_token_is_known(tmp_path):
  model, text = tmp_path / "tokenizer.model", tmp_path / "tokenizer.json"
  old, new = {6: "a", 7: "<unused0>"}, {6: "a", 7: "<think>"}
  assert choose({model: old, text: new}, 8) == text
  assert choose({model: new, text: old}, 8) == model
  assert choose({model: old, text: old}, 8) == model
  assert choose({model: {6: "a"}, text: old}, 8) == model


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model": 3}'])
def test_a_damaged_second_file_is_named(folder, content):
  (folder / "tokenizer.json").write_text(content)
  with pytest.raises(UserError, match=r"tokenizer\.json is not a Hugging Face"):
    find_tokenizer(folder, model_of(400))


DECODER = {"added_tokens_decoder": {"400": {"content": "<think>"}}}


@pytest.mark.parametrize(
  "name, content",
  [("added_tokens.json", {"<think>": 400}), ("tokenizer_config.json", DECODER)],
)
def test_a_token_that_only_another_file_names_is_refused(
  folder, add, name, content
):
  (folder / name).write_text(json.dumps(content))
  find_tokenizer(folder, model_of(400))  # which has no such row
  with pytest.raises(UserError) as error:
    find_tokenizer(folder, model_of(402))
  for part in (name, "400", "<think>", "tokenizer.model", "tokenizer.json"):
    assert part in str(error.value)
  add({400: "<think>"})  # as the message says
  assert find_tokenizer(folder, model_of(402)).vocab_size == 401


@pytest.mark.parametrize(
  "content", [{}, {"added_tokens_decoder": None}, {"added_tokens_decoder": [3]}]
)
def test_files_that_name_no_tokens_say_nothing(folder, content):
  (folder / "tokenizer_config.json").write_text(json.dumps(content))
  picture = {"<image_soft_token>": 400}
  (folder / "added_tokens.json").write_text(json.dumps(picture))
  assert find_tokenizer(folder, model_of(450)) is not None
