"""The placement of each stack: layouts, a cost model, and the selection."""
