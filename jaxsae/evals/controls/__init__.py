"""Autoencoders that have learned nothing, to compare figures with.

What a figure is worth shows beside that of a control of the same L0 at the same
sites: several figures are reached by random autoencoders as well (arXiv
2602.14111). Each control is itself an autoencoder, so everything measures it
alike. All are fitted to text that they are then measured on, which favours
them.
"""

from jaxsae.evals.controls.make import CONTROLS as CONTROLS
from jaxsae.evals.controls.make import Controls as Controls
from jaxsae.evals.controls.make import make_controls as make_controls
