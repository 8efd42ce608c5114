"""Experiment files, grids of runs, and the use of finished runs."""

from jaxsae.errors import ended_by_ctrl_c
from jaxsae.renamed import forward

with ended_by_ctrl_c():
  from jaxsae.runs.evaluate import evaluate as evaluate
  from jaxsae.runs.evaluate import evaluation_page as evaluation_page
  from jaxsae.runs.evaluate import figures as figures
  from jaxsae.runs.evaluate import recorded_at as recorded_at
  from jaxsae.runs.explore import ReportConfig as ReportConfig
  from jaxsae.runs.explore import explore as explore
  from jaxsae.runs.explore import report as report
  from jaxsae.runs.export import export as export
  from jaxsae.runs.export import export_held as export_held
  from jaxsae.runs.grid import Grid as Grid
  from jaxsae.runs.grid import GridPart as GridPart
  from jaxsae.runs.main import main as main
  from jaxsae.runs.main import main_each as main_each
  from jaxsae.runs.open import Run as Run
  from jaxsae.runs.open import open_run as open_run
  from jaxsae.runs.probe import ProbeConfig as ProbeConfig
  from jaxsae.runs.probe import probe as probe
  from jaxsae.runs.published import evaluate_published as evaluate_published
  from jaxsae.runs.settings import RunSettings as RunSettings
  from jaxsae.runs.settings import TextPlace as TextPlace

__getattr__ = forward(__name__, {"Row": "jaxsae.runs.GridPart"})
