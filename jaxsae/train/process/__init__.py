"""The process around a run: its folder, owner, signals and programs."""
