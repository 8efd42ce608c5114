"""Export of a run's autoencoders in a published format."""

from collections.abc import Mapping
from typing import Any

from jaxsae import formats, overrides, pod
from jaxsae.formats import Published
from jaxsae.formats.gemma_scope import input_gain
from jaxsae.lm import Site
from jaxsae.runs.evaluate import figures
from jaxsae.runs.open import Run
from jaxsae.sae import Sae


def export(run: Run, format: str, out: formats.Path) -> list[str]:
  """Writes every autoencoder in a published format, in a new folder.

  Args:
    run: the finished run.
    format: one of `jaxsae.formats.FORMATS`.
    out: the new folder; it must not exist.

  Returns:
    The paths of the files, relative to the folder.
  """
  measured = figures(run)
  saes = {name: pod.to_host(sae) for name, (_, sae) in run.saes.items()}

  def write() -> list[str]:
    records = (
      _record(run, run.saes[name][0], sae, measured[name])
      for name, sae in saes.items()
    )
    return formats.write_release(format, records, out)

  return pod.on_leader(write)


def _record(
  run: Run, site: Site, sae: Sae, figures: Mapping[str, Any]
) -> Published:
  """Collects what the run knows about one of its autoencoders."""
  recipe = overrides.to_json(run.config)
  return Published(
    sae,
    site,
    input_gain(run.lm, site),
    model=run.lm.name,
    data=recipe["data"],
    recipe=recipe,
    metrics={k: v for k, v in figures.items() if isinstance(v, float)},
  )
