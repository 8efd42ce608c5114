"""The checks that look at every step of a run.

To add one, write its file beside this one and list its class below.
"""

from jaxsae.train.monitor.architecture import ArchitectureCheck
from jaxsae.train.monitor.check import Check
from jaxsae.train.monitor.nonfinite import NonFiniteCheck
from jaxsae.train.monitor.spikes import LossSpikeCheck

# In the order in which they run. A step that is not finite stops the run before
# others look at it.
CHECKS: tuple[type[Check], ...] = (
  NonFiniteCheck,
  LossSpikeCheck,
  ArchitectureCheck,
)
