"""The page of an evaluation: sparsity against fidelity, and every figure."""

from jaxsae.app.evaluation.page import render as render
from jaxsae.app.evaluation.page import write as write
