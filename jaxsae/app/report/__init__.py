"""The report of a run: a page to look at its latents, without a server."""

from jaxsae.app.report.page import render as render
from jaxsae.app.report.page import write as write
