"""What is copied to each worker and runs there."""
