"""Export of a run's autoencoders in a published format."""

import os

from jaxsae import formats, pod
from jaxsae.runs.evaluate import figures
from jaxsae.runs.open import Run


def export(run: Run, format: str, out: str | os.PathLike[str]) -> list[str]:
  """Writes every autoencoder in a published format, in a new folder.

  Args:
    run: the finished run.
    format: one of `jaxsae.formats.FORMATS`.
    out: the new folder; it must not exist.

  Returns:
    The paths of the files, relative to the folder.
  """
  measured = figures(run)
  saes = [
    (site, pod.to_host(sae), measured[name]["l0"])
    for name, (site, sae) in run.saes.items()
  ]
  return pod.on_leader(lambda: formats.write_all(format, saes, out, run.lm))
