"""Text from the language model, edited or not."""

from jaxsae.lm.generation.generate import generate as generate
