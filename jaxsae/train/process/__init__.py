"""The process around a run: folder, lease, text, signals, compile cache."""
