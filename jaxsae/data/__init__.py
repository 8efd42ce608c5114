"""Turns text into packed token batches."""

from jaxsae.data.config import DataConfig as DataConfig
from jaxsae.data.corpus import Corpus as Corpus
from jaxsae.data.corpus import Rows as Rows
from jaxsae.data.corpus import is_held_out as is_held_out
from jaxsae.data.corpus import open_corpus as open_corpus
from jaxsae.data.documents import Document as Document
from jaxsae.data.documents import check_source as check_source
from jaxsae.data.documents import list_source as list_source
from jaxsae.data.documents import read_documents as read_documents
from jaxsae.data.documents import said_of_ignored as said_of_ignored
from jaxsae.data.pipeline import Batches as Batches
from jaxsae.data.pipeline import batches as batches
from jaxsae.data.pipeline import held_out_batches as held_out_batches
from jaxsae.data.tokens import Tokenizer as Tokenizer
from jaxsae.data.tokens import TokenPolicy as TokenPolicy
from jaxsae.data.tokens import check_policy as check_policy
