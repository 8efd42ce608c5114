"""How language models lie on disk: Hugging Face's way and the official one."""
