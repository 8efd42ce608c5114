"""Looking at what autoencoders have learned."""
