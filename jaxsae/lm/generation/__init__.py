"""Text from the language model, edited or not."""

from jaxsae.lm.generation.chat import chat_prompt as chat_prompt
from jaxsae.lm.generation.generate import generate as generate
