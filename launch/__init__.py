"""Cloud TPUs: create, set up, run, watch, delete. See launch/README.md.

It needs only the standard library, so it runs from a fresh checkout.
"""
