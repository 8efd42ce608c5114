"""Cloud TPUs: create, set up, run, watch, delete. See launch/README.md.

The standard library is all it needs, so that it runs from a fresh checkout.
"""
