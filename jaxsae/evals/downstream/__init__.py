"""Evaluation of autoencoders by what their latents are good for."""

from jaxsae.evals.downstream.estimate import Estimate as Estimate
from jaxsae.evals.downstream.estimate import Score as Score
from jaxsae.evals.downstream.first_letter import (
  AbsorptionResult as AbsorptionResult,
)
from jaxsae.evals.downstream.first_letter import (
  measure_absorption as measure_absorption,
)
from jaxsae.evals.downstream.labelled import LabelledTexts as LabelledTexts
from jaxsae.evals.downstream.python_texts import python_texts as python_texts
from jaxsae.evals.downstream.suite import Probing as Probing
from jaxsae.evals.downstream.suite import ProbingResult as ProbingResult
from jaxsae.evals.downstream.suite import probe as probe
from jaxsae.evals.downstream.suite import table as table
from jaxsae.evals.downstream.suite import write as write
from jaxsae.evals.downstream.text_files import read_texts as read_texts
