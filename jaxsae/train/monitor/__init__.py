"""Watching a run: its metrics, its alarms, and how busy the devices are."""
