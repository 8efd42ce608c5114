"""Gemma Scope's files are read and written exactly; broken ones are refused."""

import os
import struct
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae import process
from jaxsae.errors import UserError
from jaxsae.formats import FORMATS, Published, gemma_scope
from jaxsae.lm import GemmaConfig, Lm, Site, Taps, init_params
from jaxsae.sae import JumpRelu
from jaxsae.sae.model import Sae
from jaxsae.sae.stack import init
from tests.libraries import need

pytestmark = pytest.mark.slow

NAMES = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
D, F = 4, 16


@pytest.fixture
def sae():
  keys = jax.random.split(jax.random.key(0), 5)
  return Sae(
    w_enc=jax.random.normal(keys[0], (D, F)),
    b_enc=jax.random.normal(keys[1], (F,)),
    w_dec=jax.random.normal(keys[2], (F, D)),
    b_dec=jax.random.normal(keys[3], (D,)),
    threshold=jax.random.uniform(keys[4], (F,)),
  )


@pytest.fixture
def transcoder(sae):
  """Makes a transcoder from D to D - 1."""
  return sae.replace(w_dec=sae.w_dec[:, 1:], b_dec=sae.b_dec[1:])


@pytest.fixture
def lm():
  """Makes the part of a language model that has a gain."""
  gemma = GemmaConfig(
    vocab_size=8,
    num_layers=2,
    embed_dim=D,
    hidden_dim=8,
    num_heads=1,
    num_kv_heads=1,
    head_dim=4,
    query_pre_attn_scalar=4,
    window=4,
  )
  params = init_params(gemma, jax.random.key(0))
  norm = params["layer_1"]["pre_ffw_norm"]
  norm["scale"] = jnp.array([0.5, -0.25, 2.0, -3.0])
  return Lm(params, gemma)


@pytest.fixture
def arrays(sae):
  """Returns the arrays in the file by their names in the format."""
  return {n: np.asarray(getattr(sae, n.lower())) for n in NAMES}


@pytest.fixture
def file(tmp_path):
  return tmp_path / "params.npz"


def test_a_round_trip_keeps_every_bit(sae, file):
  gemma_scope.write(sae, file)
  back = gemma_scope.read(file)
  assert jax.tree.structure(back) == jax.tree.structure(sae)
  for ours, theirs in zip(
    jax.tree.leaves(sae), jax.tree.leaves(back), strict=True
  ):
    assert theirs.dtype == jnp.float32
    np.testing.assert_array_equal(ours, theirs)


def test_a_transcoder_may_write_another_width(transcoder, file):
  gemma_scope.write(transcoder, file)
  back = gemma_scope.read(file)
  x = jax.random.normal(jax.random.key(1), (3, D))
  np.testing.assert_array_equal(back(x), transcoder(x))
  assert back(x).shape == (3, D - 1)


PAIR = Taps.transcoder(1)


def test_a_published_transcoder_reads_before_the_gain(sae, lm):
  before = jax.random.normal(jax.random.key(1), (32, D))
  gain = 1 + lm.params["layer_1"]["pre_ffw_norm"]["scale"][None]
  sae = sae.replace(w_skip=jax.random.normal(jax.random.key(2), (D, D)))
  published = gemma_scope.to_published(sae, PAIR, lm)
  assert (published.encode(before) > 0).any()
  np.testing.assert_allclose(
    published(before), sae(gain * before), rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize("site", [Site("resid", 1), Site("mlp_in", 1)])
def test_other_sites_are_published_as_they_are(sae, lm, site):
  assert gemma_scope.to_published(sae, site, lm) is sae
  assert gemma_scope.from_published(sae, site, lm) is sae


def test_a_transcoder_comes_back_from_its_published_form(sae, lm, file):
  gemma_scope.write(gemma_scope.to_published(sae, PAIR, lm), file)
  back = gemma_scope.from_published(gemma_scope.read(file), PAIR, lm)
  jax.tree.map(
    lambda ours, theirs: np.testing.assert_allclose(theirs, ours, rtol=1e-6),
    sae,
    back,
  )


def test_a_gain_of_0_is_named(sae, lm):
  norm = lm.params["layer_1"]["pre_ffw_norm"]
  norm["scale"] = norm["scale"].at[2].set(-1)
  with pytest.raises(UserError, match=r"before transcoder\.1 has a gain of 0"):
    gemma_scope.from_published(sae, PAIR, lm)


def test_a_transcoder_is_not_published_without_its_gain(sae):
  with pytest.raises(UserError, match=r"transcoder\.1 cannot be .* give lm="):
    gemma_scope.to_published(sae, PAIR, None)


@pytest.mark.filterwarnings("ignore")  # SAELens's imports
def test_sae_lens_computes_the_same_for_a_transcoder(
  sae, lm, tmp_path, monkeypatch
):
  """From TransformerLens's ln2.hook_normalized, which is before the gain."""
  torch = need("torch")
  from sae_lens import JumpReLUTranscoder, JumpReLUTranscoderConfig
  from sae_lens.loading import pretrained_sae_loaders as loaders

  folder = gemma_scope.folder(PAIR, 16_384, 30)  # it asks for a known width
  published = gemma_scope.to_published(sae, PAIR, lm)
  gemma_scope.write(published, tmp_path / folder / "params.npz")
  monkeypatch.setattr(
    loaders,
    "hf_hub_download",
    lambda filename, **_: tmp_path / "transcoder" / filename,
  )
  config, state, _ = loaders.gemma_2_transcoder_huggingface_loader(
    "google/gemma-scope-2b-pt-transcoders",
    folder.removeprefix("transcoder/"),
    cfg_overrides={"d_in": D, "d_out": D, "d_sae": F},
  )
  assert config["hook_name"] == "blocks.1.ln2.hook_normalized"
  config = loaders.handle_config_defaulting(config)
  theirs = JumpReLUTranscoder(JumpReLUTranscoderConfig.from_dict(config))
  theirs.load_state_dict(state)
  before = np.random.default_rng(0).normal(size=(32, D)).astype(np.float32)
  gain = 1 + lm.params["layer_1"]["pre_ffw_norm"]["scale"][None]
  with torch.no_grad():
    found = theirs(torch.tensor(before))
  np.testing.assert_allclose(sae(gain * before), found, rtol=1e-4, atol=1e-4)


def test_the_file_holds_the_published_arrays(arrays, sae, file):
  gemma_scope.write(sae, file)
  with np.load(file, allow_pickle=False) as saved:
    assert set(saved) == set(NAMES)
    for name, array in arrays.items():
      assert saved[name].dtype == np.float32
      np.testing.assert_array_equal(saved[name], array)


def test_plain_numpy_computes_the_same(sae, file):
  gemma_scope.write(sae, file)
  x = np.random.default_rng(0).normal(size=(32, D)).astype(np.float32)
  with np.load(file, allow_pickle=False) as p:
    pre = x @ p["W_enc"] + p["b_enc"]
    latents = np.maximum(pre, 0) * (pre > p["threshold"])
    reconstruction = latents @ p["W_dec"] + p["b_dec"]
  assert 0 < (latents > 0).mean() < 1
  np.testing.assert_allclose(sae.encode(x), latents, atol=1e-5)
  np.testing.assert_allclose(sae(x), reconstruction, atol=1e-5)


def test_a_latent_at_its_threshold_is_not_active(file):
  sae = Sae(
    w_enc=jnp.eye(1, 3),
    b_enc=jnp.zeros(3),
    w_dec=jnp.ones((3, 1)),
    b_dec=jnp.zeros(1),
    threshold=jnp.array([0.5, 0.0, 0.0]),
  )
  gemma_scope.write(sae, file)
  latents = gemma_scope.read(file).encode(jnp.array([[0.5], [0.75]]))
  np.testing.assert_array_equal(latents, [[0, 0, 0], [0.75, 0, 0]])


@pytest.mark.filterwarnings("ignore")  # SAELens's imports
def test_sae_lens_computes_the_same(sae, tmp_path, monkeypatch):
  torch = need("torch")
  from sae_lens import SAE
  from sae_lens.loading import pretrained_sae_loaders as loaders

  folder = gemma_scope.folder(Site("resid", 12), F, 30)
  gemma_scope.write(sae, tmp_path / folder / "params.npz")

  def local(repo_id, filename, subfolder, force_download):
    return tmp_path / repo_id.rpartition("-")[2] / subfolder / filename

  monkeypatch.setattr(loaders, "hf_hub_download", local)
  config, state, _ = loaders.gemma_2_sae_huggingface_loader(
    "google/gemma-scope-2b-pt-res",
    folder.removeprefix("res/"),
    cfg_overrides={"d_in": D, "d_sae": F},
  )
  assert config["hook_name"] == "blocks.12.hook_resid_post"
  theirs = SAE.from_dict(loaders.handle_config_defaulting(config))
  theirs.load_state_dict(state)
  x = np.random.default_rng(0).normal(size=(32, D)).astype(np.float32)
  with torch.no_grad():
    latents = theirs.encode(torch.tensor(x))
    reconstruction = theirs(torch.tensor(x))
  np.testing.assert_allclose(sae.encode(x), latents, atol=1e-5)
  np.testing.assert_allclose(sae(x), reconstruction, atol=1e-5)


def test_lower_case_weights_are_read(arrays, sae, file):
  np.savez(file, **{name.lower(): array for name, array in arrays.items()})
  np.testing.assert_array_equal(gemma_scope.read(file).w_enc, sae.w_enc)


@pytest.mark.parametrize("kind", ["<f2", ">f4", "<f8"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_other_floats_become_float32(arrays, file, kind, save):
  save(file, **{name: array.astype(kind) for name, array in arrays.items()})
  back = gemma_scope.read(file)
  assert back.w_dec.dtype == jnp.float32
  np.testing.assert_array_equal(back.w_dec, arrays["W_dec"].astype(kind))


def test_more_than_there_is_memory_for_is_refused_unread(
  sae, file, monkeypatch
):
  gemma_scope.write(sae, file)
  needed = 3 * sum(x.nbytes for x in jax.tree.leaves(sae))
  monkeypatch.setattr(process, "memory_limit", lambda: needed)
  gemma_scope.read(file)
  monkeypatch.setattr(process, "memory_limit", lambda: needed - 1)
  forbid_reading(monkeypatch)
  with pytest.raises(UserError, match="GB of memory") as caught:
    gemma_scope.read(file)
  assert str(file) in str(caught.value)


def test_an_autoencoder_of_zeros_is_read_compressed(file):
  zeros = {"W_enc": (8, 512), "W_dec": (512, 8), "b_dec": (8,)}
  zeros |= {"b_enc": (512,), "threshold": (512,)}
  np.savez_compressed(file, **{k: np.zeros(s) for k, s in zeros.items()})
  assert gemma_scope.read(file).width == 512


@pytest.mark.parametrize(
  "site, width, l0, expected",
  [
    (Site("resid", 3), 2048, 32, "res/layer_3/width_2k/average_l0_32"),
    (Site("mlp", 0), 16_384, 71.4, "mlp/layer_0/width_16k/average_l0_71"),
    (Site("attn", 25), 65_536, 8.0, "att/layer_25/width_65k/average_l0_8"),
    (Site("resid", 1), 131_072, 9, "res/layer_1/width_131k/average_l0_9"),
    (Site("resid", 1), 524_288, 9, "res/layer_1/width_524k/average_l0_9"),
    (Site("resid", 1), 1_048_576, 9, "res/layer_1/width_1m/average_l0_9"),
    (Site("resid", 1), 3000, 9, "res/layer_1/width_3000/average_l0_9"),
    (Site("resid", 1), 512, 9, "res/layer_1/width_512/average_l0_9"),
    (PAIR, 512, 9, "transcoder/layer_1/width_512/average_l0_9"),
    (Site("mlp_in", 1), 512, 9, "mlp_in/layer_1/width_512/average_l0_9"),
  ],
)
def test_folders_are_named_as_published(site, width, l0, expected):
  assert gemma_scope.folder(site, width, l0) == expected


# Autoencoders and paths that are refused when writing.


def test_an_existing_file_stays(sae, file):
  file.write_text("mine")
  with pytest.raises(UserError, match=r"params\.npz exists; remove it"):
    gemma_scope.write(sae, file)
  assert file.read_text() == "mine"


def test_a_stack_is_not_an_autoencoder(file):
  stack = init(JumpRelu(threshold=0.1), range(3), D, D, F)
  with pytest.raises(UserError, match=r"W_enc .*\(3, 4, 16\)"):
    gemma_scope.write(stack, file)
  assert not file.exists()


def test_a_topk_autoencoder_is_not_written(sae, file):
  with pytest.raises(UserError, match=r"TopK autoencoder \(k=3\) cannot be"):
    gemma_scope.write(sae.replace(k=3), file)
  assert not file.exists()


def test_a_transcoder_with_a_skip_is_not_written(sae, file):
  with pytest.raises(UserError, match=r"affine skip cannot be written .*npz"):
    gemma_scope.write(sae.replace(w_skip=jnp.zeros((D, D))), file)
  assert not file.exists()


def test_a_broken_autoencoder_is_not_written(sae, file):
  broken = sae.replace(b_dec=sae.b_dec.at[1].set(jnp.nan))
  with pytest.raises(UserError, match=r"b_dec .* not finite"):
    gemma_scope.write(broken, file)
  assert not file.exists()


def test_a_folder_that_is_a_file_is_named(sae, tmp_path):
  (tmp_path / "file").write_text("")
  for path in ("file/params.npz", "file/deeper/params.npz"):
    with pytest.raises(UserError, match=rf"{path} cannot be written"):
      gemma_scope.write(sae, tmp_path / path)


def test_a_full_disk_leaves_nothing_behind(sae, file, monkeypatch):
  savez = np.savez

  def full(handle, **arrays):
    savez(handle, **arrays)
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(np, "savez", full)
  with pytest.raises(UserError, match=r"params\.npz .*No space left"):
    gemma_scope.write(sae, file)
  assert os.listdir(file.parent) == []


def test_a_failed_rename_leaves_nothing_behind(sae, file, monkeypatch):
  def refuse(source, target):
    assert os.path.getsize(source)
    raise OSError(30, "Read-only file system")

  monkeypatch.setattr(os, "replace", refuse)
  with pytest.raises(UserError, match="Read-only"):
    gemma_scope.write(sae, file)
  assert os.listdir(file.parent) == []


def test_an_interrupted_write_leaves_nothing_behind(sae, file, monkeypatch):
  def die(source, target):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, "replace", die)
  with pytest.raises(KeyboardInterrupt):
    gemma_scope.write(sae, file)
  assert os.listdir(file.parent) == []


# Files that are refused when reading.


def test_a_missing_file_is_named(file):
  with pytest.raises(UserError, match=r"params\.npz cannot be read \(No such"):
    gemma_scope.read(file)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"\0" * 99])
def test_what_is_not_a_zip_is_named(file, content):
  file.write_bytes(content)
  with pytest.raises(UserError, match=r"params\.npz is not an \.npz file"):
    gemma_scope.read(file)


def test_a_lone_npy_is_not_an_npz(file):
  with open(file, "wb") as f:
    np.save(f, np.zeros(3))
  with pytest.raises(UserError, match=r"params\.npz is not an \.npz file"):
    gemma_scope.read(file)


def test_every_truncated_file_is_refused(sae, file):
  gemma_scope.write(sae, file)
  whole = file.read_bytes()
  for keep in range(0, len(whole), 97):
    file.write_bytes(whole[:keep])
    with pytest.raises(UserError, match=r"params\.npz"):
      gemma_scope.read(file)


def test_a_changed_byte_raises_nothing_but_a_user_error(sae, file):
  gemma_scope.write(sae, file)
  whole = file.read_bytes()
  rng = np.random.default_rng(0)
  for place in rng.integers(len(whole), size=400):
    changed = bytearray(whole)
    changed[place] ^= int(rng.integers(1, 256))
    file.write_bytes(changed)
    try:
      gemma_scope.read(file)  # a date in the zip may change
    except UserError as error:
      assert str(file) in str(error)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_array_is_named(arrays, file, name):
  del arrays[name]
  np.savez(file, **arrays)
  with pytest.raises(UserError, match=rf"params\.npz lacks {name};"):
    gemma_scope.read(file)


@pytest.mark.parametrize("name", ["scaling_factor", "w_enc", "../b_enc"])
def test_a_surplus_array_is_named(arrays, file, name):
  np.savez(file, **arrays, **{name: arrays["W_enc"]})
  with pytest.raises(UserError, match=name):
    gemma_scope.read(file)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (0,), (F + 1,), (D, F + 1), (1, D, F)])
def test_a_wrong_shape_is_named(arrays, file, name, shape):
  np.savez(file, **{**arrays, name: np.zeros(shape, np.float32)})
  with pytest.raises(UserError, match=rf"{name} (in .*has|of) shape"):
    gemma_scope.read(file)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named(arrays, file, name, bad):
  arrays[name] = arrays[name].copy()
  arrays[name].flat[-1] = bad
  np.savez(file, **arrays)
  with pytest.raises(UserError, match=f"{name} in .*params.npz .*not finite"):
    gemma_scope.read(file)


def test_a_value_too_large_for_float32_is_not_finite(arrays, file):
  np.savez(file, **{**arrays, "b_dec": np.full(D, 1e300)})
  with pytest.raises(UserError, match=r"b_dec .*not finite"):
    gemma_scope.read(file)


def test_a_negative_threshold_is_named(arrays, file):
  np.savez(file, **{**arrays, "threshold": np.full(F, -0.1, np.float32)})
  with pytest.raises(UserError, match=r"threshold in .*negative"):
    gemma_scope.read(file)


@pytest.mark.parametrize("kind", [np.int32, bool, np.complex64, "S4"])
def test_a_type_that_is_not_float_is_named(arrays, file, kind):
  np.savez(file, **{**arrays, "b_enc": np.zeros(F, kind)})
  with pytest.raises(UserError, match=r"b_enc in .*is of type"):
    gemma_scope.read(file)


class Trap:
  """An object whose pickle acts when it is loaded."""

  def __reduce__(self):
    return os.mkdir, ("sprung",)


def test_a_pickle_is_not_loaded(arrays, file, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  trap = np.array([Trap()] * F, object)
  np.savez(file, **{**arrays, "b_enc": trap}, allow_pickle=True)
  with pytest.raises(UserError, match=r"b_enc in .*is of type object"):
    gemma_scope.read(file)
  assert not os.path.exists("sprung")


def store(file, arrays, *, header=None, compression=zipfile.ZIP_STORED):
  """Writes an .npz by hand, with a given header for `W_enc`."""
  with zipfile.ZipFile(file, "w", compression) as archive:
    for name, array in arrays.items():
      text = (
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': {array.shape}}}"
      )
      if name == "W_enc" and header:
        text = header
      text = text.encode() + b"\n"
      start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
      archive.writestr(f"{name}.npy", start + array.tobytes())


def test_the_file_made_by_hand_can_be_read(arrays, file):
  store(file, arrays)
  gemma_scope.read(file)


def lying(shape):
  return f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"


@pytest.mark.parametrize(
  "header",
  [
    lying((2**20, 2**20)),
    lying((10**4000, 10**4000)),
    lying((-D, -F)),
    lying((D, F - 1)),
    lying("(4, 'x')"),
    "{}",
    "(" * 5000,
    "x" * 20_000,
    "\0",
  ],
  ids=lambda header: header[:70],
)
def test_a_header_with_a_false_size_allocates_nothing(
  arrays, file, header, monkeypatch
):
  store(file, arrays, header=header)
  forbid_reading(monkeypatch)
  with pytest.raises(UserError, match=r"W_enc in .*params\.npz"):
    gemma_scope.read(file)


def forbid_reading(monkeypatch):
  def read_array(*args, **kwargs):
    raise AssertionError("an array was made")

  monkeypatch.setattr(np.lib.format, "read_array", read_array)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_header_and_zip_with_a_false_size_allocate_nothing(
  arrays, file, method, monkeypatch
):
  """Header and zip both claim 256 GiB; the file holds a few bytes."""
  shape = (2**16, 2**20)
  header = lying(shape)
  store(file, arrays, header=header, compression=method)
  size = 2**38 + 10 + len(header) + 1
  monkeypatch.setattr(
    zipfile.ZipFile,
    "infolist",
    promising(zipfile.ZipFile.infolist, "W_enc.npy", size),
  )
  forbid_reading(monkeypatch)
  with pytest.raises(UserError, match=r"W_enc .*promises"):
    gemma_scope.read(file)


def promising(infolist, name, size):
  def changed(archive):
    members = infolist(archive)
    for member in members:
      if member.filename == name:
        member.file_size = size
    return members

  return changed


def test_a_wrong_checksum_is_named(arrays, file):
  store(file, arrays)
  data = bytearray(file.read_bytes())
  data[data.index(arrays["b_dec"].tobytes())] ^= 1
  file.write_bytes(data)
  with pytest.raises(UserError, match=r"b_dec in .*damaged"):
    gemma_scope.read(file)


# The file as one of the formats.

FORMAT = FORMATS["gemma_scope"]
PLACE = "layer_1/width_16/average_l0_71"


@pytest.mark.parametrize(
  ("place", "site", "model"),
  [
    (f"res/{PLACE}", "resid.1", None),
    (f"att/{PLACE}_2", "attn.1", None),
    (f"gemma-scope-9b-it-res/{PLACE}", "resid.1", "gemma2-9b-it"),
    (f"gemma-scope-2b-pt-transcoders/{PLACE}", "transcoder.1", "gemma2-2b-pt"),
    (
      f"models--google--gemma-scope-2b-pt-mlp/snapshots/fd57/{PLACE}",
      "mlp.1",
      "gemma2-2b-pt",
    ),
  ],
)
def test_a_published_path_gives_site_and_l0(sae, tmp_path, place, site, model):
  gemma_scope.write(sae, tmp_path / place / "params.npz")
  for path in (tmp_path / place, tmp_path / place / "params.npz"):
    record = FORMAT.read(path)
    assert (str(record.taps), record.model) == (site, model)
    assert record.metrics == {"l0": 71}


@pytest.mark.parametrize(
  "place",
  [
    "mine",
    PLACE,
    f"embedding/{PLACE}",
    f"notres/{PLACE}",
    "res/layer_1/width_16k/average_l0_71",  # it has 16 latents
    "res/layer_1/width_16/canonical",
    "res/layer_x/width_16/average_l0_71",
  ],
)
def test_any_other_path_gives_no_site_or_l0(sae, tmp_path, place):
  gemma_scope.write(sae, tmp_path / place / "params.npz")
  record = FORMAT.read(tmp_path / place)
  assert (record.taps, record.model, dict(record.metrics)) == (None, None, {})


def test_a_published_transcoder_is_written_as_it_was_read(sae, lm, tmp_path):
  ours = Published(
    sae, PAIR, gemma_scope.input_gain(lm, PAIR), metrics={"l0": 3}
  )
  FORMAT.write(ours, tmp_path / FORMAT.place(ours))
  theirs = FORMAT.read(tmp_path / FORMAT.place(ours))
  assert theirs.taps == PAIR
  FORMAT.write(theirs, tmp_path / "again")
  for folder in (FORMAT.place(ours), "again"):
    np.testing.assert_array_equal(
      gemma_scope.read(tmp_path / folder / "params.npz").w_enc,
      gemma_scope.to_published(sae, PAIR, lm).w_enc,
    )


def test_only_files_of_the_format_match(sae, arrays, tmp_path):
  gemma_scope.write(sae, tmp_path / "params.npz")
  np.savez(tmp_path / "other.npz", weights=arrays["W_enc"])
  (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
  (tmp_path / "ae.pt").write_bytes(b"PK")
  (tmp_path / "folder.npz").mkdir()
  os.mkfifo(tmp_path / "pipe.npz")
  matching = ["params.npz", "", "cut.npz"]
  others = ["other.npz", "ae.pt", "folder.npz", "pipe.npz", "no.npz", "\0"]
  assert all(FORMAT.matches(tmp_path / name) for name in matching)
  assert not any(FORMAT.matches(tmp_path / name) for name in others)


def test_matching_reads_no_array(sae, file, monkeypatch):
  gemma_scope.write(sae, file)
  forbid_reading(monkeypatch)
  assert FORMAT.matches(file)
