"""Saves a run, restores it, and detects corrupted checkpoints."""
