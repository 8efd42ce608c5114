"""Surveys of trained autoencoders: what latents respond to and promote."""

from jaxsae.explore.contexts import kept_bytes as kept_bytes
from jaxsae.explore.neighbours import nearest as nearest
from jaxsae.explore.promoted import logit_effects as logit_effects
from jaxsae.explore.report import Contexts as Contexts
from jaxsae.explore.report import Report as Report
from jaxsae.explore.report import SaeReport as SaeReport
from jaxsae.explore.survey import WEAKER as WEAKER
from jaxsae.explore.survey import survey as survey
