"""Watches a run: its metrics, its checks, and how busy the devices are."""
