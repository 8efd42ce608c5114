"""Evaluation of autoencoders on held-out text."""

from jaxsae.evals import downstream as downstream
from jaxsae.evals.fidelity import Fidelity as Fidelity
from jaxsae.evals.fidelity import count_passes as count_passes
from jaxsae.evals.fidelity import measure_fidelity as measure_fidelity
from jaxsae.evals.keeper import PARTS as PARTS
from jaxsae.evals.keeper import Figures as Figures
from jaxsae.evals.keeper import Keeper as Keeper
from jaxsae.evals.record import read as read
from jaxsae.evals.sparsity import Moments as Moments
from jaxsae.evals.sparsity import Sparsity as Sparsity
from jaxsae.evals.sparsity import measure_sparsity as measure_sparsity
from jaxsae.evals.suite import Result as Result
from jaxsae.evals.suite import evaluate as evaluate
from jaxsae.evals.suite import table as table
from jaxsae.evals.suite import write as write
