"""The report of a run: one HTML page about its latents, without a server."""

from jaxsae.app.report.page import render as render
from jaxsae.app.report.page import write as write
