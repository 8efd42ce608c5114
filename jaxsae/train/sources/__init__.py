"""Sources of activations: the language model on text, and arrays in memory."""

from jaxsae.train.sources.arrays import ArraySource as ArraySource
from jaxsae.train.sources.source import Bucket as Bucket
from jaxsae.train.sources.source import Source as Source
from jaxsae.train.sources.text import TextSource as TextSource
