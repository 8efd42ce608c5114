"""Formats of language models on disk: Hugging Face's and the official one."""
