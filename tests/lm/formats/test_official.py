"""Official checkpoints load bit for bit in every layout; others are refused."""

import asyncio
import dataclasses
import gc
import json
import pathlib
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from jaxsae import mesh as meshes
from jaxsae.errors import UserError
from jaxsae.lm import GemmaConfig, init_params, sharding
from jaxsae.lm.config import PUBLISHED
from jaxsae.lm.formats import official
from tests.libraries import need

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings("ignore"),  # gemma's own, and Orbax's
]

TINY = GemmaConfig(
  vocab_size=64,
  num_layers=7,  # one more than a pattern of Gemma 3, three of Gemma 2
  embed_dim=16,
  hidden_dim=32,
  num_heads=8,
  num_kv_heads=4,
  head_dim=4,
  query_pre_attn_scalar=4,
  locals_per_global=5,
  qk_norm=True,
)


@pytest.fixture(scope="module")
def params():
  """Makes random parameters, norm scales included."""
  shapes = jax.eval_shape(lambda key: init_params(TINY, key), jax.random.key(0))
  random = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: jnp.asarray(random.normal(size=x.shape).astype(x.dtype)), shapes
  )


# The layouts.


def nested(params):
  return params


def flat(params):
  need("gemma")
  from gemma.gm.ckpts import _checkpoint

  return _checkpoint._nested_to_flat(params)


def stacked(params):
  need("gemma")
  from gemma.gm.ckpts import _checkpoint

  return _checkpoint._nested_to_stacked(params, 6)


def kauldron(params):
  moments = ({"mu": jax.tree.map(jnp.zeros_like, params)}, jnp.zeros(()))
  other = {"ema": {"decay": jnp.ones(1)}}
  rest = {"step": 3, "opt_state": moments, "collections": other}
  return {"params": params, **rest}


LAYOUTS = [nested, flat, stacked, kauldron]


@pytest.fixture(scope="module")
def saved(params, tmp_path_factory):
  """`saved(layout)` is a checkpoint that the official library wrote."""
  gm = need("gemma.gm")

  folder = epath.Path(tmp_path_factory.mktemp("official"))
  for layout in LAYOUTS:
    gm.ckpts.save_params(
      layout(params), folder / layout.__name__, wait_until_finished=True
    )
  return lambda layout: folder / layout.__name__


# Containers of checkpoints.


def plain_files(path, tree):
  """Writes one folder per array instead of one database."""
  import orbax.checkpoint as ocp

  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as writer:
    writer.save(path, tree)
  return path


def item_in_a_step(path, tree):
  """Writes an item in a step, as a CheckpointManager does."""
  import orbax.checkpoint as ocp

  with ocp.CheckpointManager(path, item_names=("default",)) as manager:
    manager.save(
      0, args=ocp.args.Composite(default=ocp.args.StandardSave(tree))
    )
  return path / "0"


def item_itself(path, tree):
  return item_in_a_step(path, tree) / "default"


def version_1(path, tree):
  from orbax.checkpoint import v1 as ocp

  ocp.save(path, tree)
  return path


def old(path, tree):
  """Writes what Orbax wrote when the weights of Gemma 2 were released."""
  plain_files(path, tree)
  for name in ("_CHECKPOINT_METADATA", "_sharding", "commit_success.txt"):
    (path / name).unlink()
  (path / "array_metadatas").rmtree()
  metadata = json.loads((path / "_METADATA").read_text())
  only = {"tree_metadata": metadata["tree_metadata"]}
  (path / "_METADATA").write_text(json.dumps(only))
  return path


CONTAINERS = [plain_files, item_in_a_step, item_itself, version_1, old]


@pytest.fixture
def path(tmp_path):
  return epath.Path(tmp_path) / "checkpoint"


# Loading what was saved.


def load(path, config=TINY, dtype=jnp.float32, mesh=None, fsdp=False):
  place = sharding.placement(config, mesh, fsdp)
  return official.read_params(path, config, dtype, place)


def assert_same(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads_as_the_official_library_does(params, saved, layout):
  gm = need("gemma.gm")

  assert official.is_checkpoint(saved(layout))
  found = load(saved(layout))
  assert_same(found, params)
  assert_same(found, gm.ckpts.load_params(saved(layout)))


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("layout", [flat, kauldron])
def test_every_container_loads(params, path, container, layout):
  where = container(path, layout(params))
  assert official.is_checkpoint(where)
  assert_same(load(where), params)


def test_a_relative_path_is_accepted(params, saved, monkeypatch):
  monkeypatch.chdir(saved(flat).parent)
  assert_same(load(epath.Path("flat")), params)


@pytest.mark.parametrize("layout", [flat, stacked])
@pytest.mark.parametrize("data, model, fsdp", [(4, 2, False), (2, 4, True)])
def test_each_parameter_is_placed(params, saved, layout, data, model, fsdp):
  mesh = meshes.make(meshes.MeshConfig(data, model))
  found = load(saved(layout), mesh=mesh, fsdp=fsdp)
  assert_same(found, params)
  place = sharding.placement(TINY, mesh, fsdp)
  for keys, x in jax.tree_util.tree_leaves_with_path(found):
    where = place(tuple(key.key for key in keys))
    assert x.sharding.is_equivalent_to(where, x.ndim)


def test_weights_load_in_the_chosen_dtype(params, saved):
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
  for layout in (flat, stacked):
    assert_same(load(saved(layout), dtype=jnp.bfloat16), half)


def test_the_vision_parts_of_gemma_3_are_not_read(params, path):
  sight = {"mm_input_projection": {"w": jnp.ones((8, 16))}}
  sight["mm_soft_embedding_norm"] = {"scale": jnp.ones(8)}
  tree = params | {
    "embedder": params["embedder"] | sight,
    "vision_encoder": {"siglip_encoder": {"kernel": jnp.ones((3, 3))}},
  }
  plain_files(path, flat(tree))
  chunks = [*files(path, "mm_*/0*"), *files(path, "*kernel/0*")]
  assert len(chunks) == 3
  for chunk in chunks:
    chunk.unlink()
  assert_same(load(path), params)


def files(path, pattern):
  """Lists the files below the path that match."""
  return pathlib.Path(path).rglob(pattern)


# The sizes.


def only_metadata(path, config):
  """Writes a checkpoint of any size without its arrays."""
  shapes = jax.eval_shape(
    lambda key: init_params(config, key), jax.random.key(0)
  )
  entries = {}
  for keys, x in jax.tree_util.tree_leaves_with_path(shapes):
    names = tuple(key.key for key in keys)
    folder = path / ".".join(names)
    folder.mkdir(parents=True)
    zarr = {"zarr_format": 2, "shape": x.shape, "chunks": x.shape, "order": "C"}
    zarr |= {"dtype": "<f4", "compressor": None, "filters": None}
    (folder / ".zarray").write_text(json.dumps(zarr | {"fill_value": None}))
    entries[str(names)] = {
      "key_metadata": [{"key": name, "key_type": 2} for name in names],
      "value_metadata": {"value_type": "jax.Array", "skip_deserialize": False},
    }
  (path / "_METADATA").write_text(json.dumps({"tree_metadata": entries}))


@pytest.mark.parametrize("name", PUBLISHED)
def test_metadata_alone_identifies_the_published_model(name, path):
  only_metadata(path, PUBLISHED[name]())
  assert official.read_config(path) == PUBLISHED[name]()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sizes_are_read_from_every_layout(saved, layout, monkeypatch):
  monkeypatch.setitem(PUBLISHED, "gemma3-toy", lambda: TINY)
  assert official.read_config(saved(layout)) == TINY


def test_a_model_with_as_many_key_heads_as_queries_is_identified(
  path, monkeypatch
):
  config = dataclasses.replace(TINY, num_kv_heads=TINY.num_heads)
  only_metadata(path, config)
  monkeypatch.setitem(PUBLISHED, "gemma3-toy", lambda: config)
  assert official.read_config(path) == config


def test_other_sizes_are_named(saved):
  text = "published models.*vocab_size=64, num_layers=7.*config="
  with pytest.raises(UserError, match=text):
    official.read_config(saved(flat))


@pytest.mark.parametrize(
  "tree, lacks",
  [
    ({"dense": {"kernel": np.ones((2, 2))}}, "lacks embedder/input_embedding"),
    ({"embedder": {"input_embedding": np.ones(3)}}, "3], not 2 axes"),
  ],
)
def test_a_checkpoint_of_another_model_is_refused(path, tree, lacks):
  plain_files(path, tree)
  with pytest.raises(UserError, match=f"not a Gemma: it.*{lacks}"):
    official.read_config(path)


# Checkpoints that are refused.


def refuses(path, text, **options):
  with pytest.raises(UserError, match=text) as error:
    load(path, **options)
  message = str(error.value)
  assert str(path) in message and "\n" not in message and message[-1] == "."


def changed(params, change):
  """Returns a deep copy, changed by `change(tree)`."""
  tree = jax.tree.map(lambda x: x, params)
  change(tree)
  return tree


@pytest.mark.parametrize(
  "change, text",
  [
    (lambda t: t.pop("layer_3"), "lacks layer_3/.*and 8 more"),
    (lambda t: t.pop("final_norm"), "lacks final_norm/scale"),
    (lambda t: t.update(bias=np.ones(2)), "has, and .* not, bias"),
    (lambda t: t.update(layer_7=t["layer_0"]), "not, layer_7/attn"),
    (
      lambda t: t["final_norm"].update(scale=np.ones(17)),
      r"final_norm/scale .* the shape \[17\], not \[16\]",
    ),
    (
      lambda t: t["layer_1"]["mlp"].update(gating_einsum=np.ones((2, 16, 32))),
      "layer_1/mlp/gating_einsum .*transpose_gating is the wrong way",
    ),
    (
      lambda t: t["final_norm"].update(scale=np.ones(16, np.int8)),
      "final_norm/scale .* int8; only floating",
    ),
    (
      lambda t: t.update({"transformer/final_norm": {"scale": np.ones(16)}}),
      "final_norm/scale twice",
    ),
  ],
)
def test_parameters_that_are_wrong_are_named(params, path, change, text):
  plain_files(path, changed(params, change))
  refuses(path, text)


def test_an_array_that_is_not_a_stack_is_named(params, path):
  key = "transformer/stacked_layers/attention_type_0/mlp/linear"
  plain_files(path, flat(params) | {key: {"w": np.ones(())}})
  refuses(path, "is not a stack of layers")


def test_several_trees_in_one_checkpoint_are_named(params, path):
  plain_files(path / "params", flat(params))
  plain_files(path / "ema", flat(params))
  refuses(path, "several trees, ema, params")
  assert_same(load(path / "ema"), params)


def truncated_metadata(path):
  text = (path / "_METADATA").read_text()
  (path / "_METADATA").write_text(text[: len(text) // 2])


def metadata_of_something_else(path):
  (path / "_METADATA").write_text("[1, 2]")


def no_manifest(path):
  (path / "manifest.ocdbt").unlink()


def no_data(path):
  for file in files(path, "d/*"):
    file.unlink()


def truncated_data(path):
  for file in files(path, "d/*"):
    file.write_bytes(file.read_bytes()[:-100])


DATABASE = [
  truncated_metadata,
  metadata_of_something_else,
  no_manifest,
  no_data,
  truncated_data,
]


@pytest.mark.parametrize("harm", DATABASE)
def test_damage_is_one_sentence(saved, path, harm):
  shutil.copytree(saved(flat), path)
  harm(path)
  refuses(path, "damaged or incomplete ")


def no_chunk(path):
  next(files(path, "gating_einsum.w/0.0.0")).unlink()


def no_headers(path):
  for file in files(path, ".zarray"):
    file.unlink()


def truncated_chunk(path):
  file = next(files(path, "gating_einsum.w/0.0.0"))
  file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize(
  "harm", [truncated_metadata, no_headers, no_chunk, truncated_chunk]
)
def test_damaged_files_are_one_sentence(params, path, harm):
  plain_files(path, flat(params))
  harm(path)
  refuses(path, "damaged or incomplete ")


def test_only_the_first_of_several_failures_is_reported(
  saved, caplog, monkeypatch
):
  """asyncio's messages about the other failed reads are not shown."""

  async def fail():
    raise OSError("is gone")

  async def read():
    reads = [asyncio.create_task(fail()) for _ in range(3)]
    await reads[0]

  def metadata(*args, **options):
    asyncio.run(read())

  monkeypatch.setattr("orbax.checkpoint.v1.metadata", metadata)
  refuses(saved(flat), r"incomplete \(is gone\)")
  gc.collect()
  assert not caplog.records


# Names.


def test_official_names_are_known_in_every_spelling():
  for name in ("gemma2-2b-pt", "Gemma2_27B-IT", "gemma3_270m_it"):
    assert official.is_name(name)
  for name in ("gemma2-2b", "gemma2-3b-pt", "gemma2-tiny", "./gemma2-2b-pt"):
    assert not official.is_name(name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_official_library_locates_weights_and_tokenizer(name):
  need("gemma")
  for kind in ("pt", "it"):
    path, tokenizer = official.locate(f"{name}-{kind}")
    assert str(path) == f"gs://gemma-data/checkpoints/{name}-{kind}"
    assert f"gemma{name[5]}" in str(tokenizer)


def test_the_error_without_the_library_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "gemma", None)
  with pytest.raises(UserError, match=r"gemma2-2b-pt .*jaxsae\[gemma\]"):
    official.locate("gemma2-2b-pt")


def test_an_older_library_is_named(monkeypatch):
  gm = need("gemma.gm")

  monkeypatch.setattr(gm.ckpts.CheckpointPath, "_member_map_", {})
  with pytest.raises(UserError, match="gemma is older than gemma3-270m-pt"):
    official.locate("gemma3-270m-pt")
