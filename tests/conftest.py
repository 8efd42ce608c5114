"""Strict everywhere: 8 CPU devices, no silent rank promotion; and toys."""

import dataclasses
import gc
import os
import random
import sys

from tests import cpu

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = cpu.flags(8)
os.environ["NPROC"] = cpu.NPROC
# Of each program that it finds compiled, XLA says that this machine may not be
# the one that compiled it.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import hypothesis
import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from jaxsae import lm as lms
from jaxsae.lm import GemmaConfig, Lm, init_params, save_lm
from jaxsae.train.config.run import TrainConfig
from tests.train.toys import make_config

jax.config.update("jax_numpy_rank_promotion", "raise")

FOLDER = "JAX_COMPILATION_CACHE_DIR"


def pytest_configure(config):
  """Shares the programs that tests compile, with this run and the next.

  So do the processes that tests start. The cache lies in `.pytest_cache`, from
  which `--cache-clear` removes it.
  """
  folder = str(config.cache.mkdir("compiled"))
  jax.config.update("jax_compilation_cache_dir", folder)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  os.environ[FOLDER] = folder
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
  # A process that finds a program which another is just writing compiles it
  # anew. It need not say so where tests look at what it prints.
  os.environ["PYTHONWARNINGS"] = ",".join(
    f"ignore:Error {doing} persistent compilation cache entry"
    for doing in ("reading", "writing")
  )
  # Processes that tests start would else compile all of JAX's modules anew.
  os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
  sys.dont_write_bytecode = False
  # Looking through all that was imported took a twentieth of the time.
  gc.freeze()
  gc.set_threshold(50_000, 20, 50)


def pytest_collection_modifyitems(items):
  """Slow files first, so that no worker is left with one at the end."""
  items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def no_compile_cache(monkeypatch):
  """Keeps no compiled programs, unless the test sees to that."""
  folder = jax.config.jax_compilation_cache_dir
  monkeypatch.delenv(FOLDER)
  jax.config.update("jax_compilation_cache_dir", None)
  compilation_cache.reset_cache()
  yield
  jax.config.update("jax_compilation_cache_dir", folder)
  compilation_cache.reset_cache()


# The same examples each time, however busy the machine is.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tests")

WORDS = "the cat sat on a mat and then it ran to tell every other cat".split()


def story(seed: int) -> str:
  chosen = random.Random(seed).choices(WORDS, k=80)
  return f"story {seed}: " + " ".join(chosen) + "\n"


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
  """A folder of 200 short documents."""
  folder = tmp_path_factory.mktemp("texts")
  for seed in range(200):
    (folder / f"{seed:03d}.txt").write_text(story(seed))
  return folder


@pytest.fixture(scope="session")
def lm_path(tmp_path_factory):
  """A random Gemma 2 of two layers, small, but divisible by 8 devices."""
  path = tmp_path_factory.mktemp("lm") / "toy"
  tokenizer = lms.train_tokenizer(map(story, range(50)), 320)
  gemma = GemmaConfig(
    vocab_size=320,
    num_layers=2,
    embed_dim=32,
    hidden_dim=64,
    num_heads=16,
    num_kv_heads=8,
    head_dim=4,
    query_pre_attn_scalar=4,
    window=8,
    context=32,
  )
  params = init_params(gemma, jax.random.key(0))
  save_lm(Lm(params, gemma, tokenizer), path)
  return path


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
  """Programs go with the file that compiled them: workers grew to 7 GB."""
  yield
  jax.clear_caches()


@pytest.fixture
def config(tmp_path, texts, lm_path) -> TrainConfig:
  """Two stacks of two autoencoders, six buckets of eight updates."""
  return make_config(tmp_path, texts, lm_path)


@pytest.fixture
def replace():
  """`replace(config, mesh__model=2)`: a copy with nested fields changed."""

  def change(config, **fields):
    for name, value in fields.items():
      head, *rest = name.split("__", 1)
      if rest:
        value = change(getattr(config, head), **{rest[0]: value})
      config = dataclasses.replace(config, **{head: value})
    return config

  return change
