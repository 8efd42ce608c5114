"""What jaxsae needs, loosely; requirements*.txt hold what it is tested with."""

from setuptools import find_packages, setup

CORE = [
  "jax>=0.10",
  "flax>=0.12",
  "optax>=0.2.8",
  "orbax-checkpoint>=0.12",
  "grain>=0.2.18",
  "tensorstore>=0.1.86",
  "numpy>=2",
  "sentencepiece>=0.2",
  "safetensors>=0.5",
  "scipy>=1.13",
  "etils[epath]>=1.13",
  "fsspec",
  "rich>=14",
  "jinja2>=3.1",
  "tensorboardX>=2.6",
  "pyarrow>=20",
]

EXTRAS = {
  "tpu": ["jax[tpu]", "gcsfs", "requests"],
  "cuda": ["jax[cuda13]"],
  "gcs": ["gcsfs"],
  "probe": ["scikit-learn>=1.8"],
  "huggingface": ["huggingface_hub>=2", "tokenizers>=0.20"],
  # gemma 3.3 imports neither with a later kauldron nor with JAX 0.10.2, and
  # kauldron reaches into what typeguard changed after 4.4.
  "gemma": [
    "gemma==3.3.* ; python_version < '3.12'",
    "jax<0.10.2 ; python_version < '3.12'",
    "kauldron==1.3.* ; python_version < '3.12'",
    "typeguard==4.4.* ; python_version < '3.12'",
  ],
  # What torch and SAELens compute is tested on Python 3.11 only.
  "test": [
    "gcp-storage-emulator",
    "gcsfs",
    "huggingface_hub>=2",
    "hypothesis",
    "pyright[nodejs]==1.1.414",  # other releases find other errors
    "jsonschema",
    "pytest",
    "pytest-xdist",
    "ruff",
    "sae-lens>=6.54 ; python_version < '3.12'",
    "scikit-learn>=1.8",
    "selenium>=4.51",
    "tokenizers>=0.20",
    "torch>=2.13 ; python_version < '3.12'",
    "transformers>=5",
  ],
}

setup(
  name="jaxsae",
  version="0.1.0",
  description="Sparse autoencoders on Gemma 2, trained under one JAX mesh",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=find_packages(include=["jaxsae", "jaxsae.*"]),
  package_data={
    "jaxsae.lm": ["tiny/*"],
    "jaxsae.plan": ["prices.json"],
    "jaxsae.app.evaluation": ["*.html", "*.css"],
    "jaxsae.app.report": ["*.html", "*.css", "*.js"],
  },
  install_requires=CORE,
  extras_require=EXTRAS,
  entry_points={"console_scripts": ["jaxsae = jaxsae.cli:main"]},
)
