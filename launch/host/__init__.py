"""Files that are copied to each worker and run there."""
