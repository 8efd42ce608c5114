"""Saving a run, and noticing when what was saved is damaged."""
