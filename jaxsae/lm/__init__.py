"""The language model: Gemma 2 and 3 in Flax, with taps at every site."""

from jaxsae.lm.config import GemmaConfig as GemmaConfig
from jaxsae.lm.config import LmConfig as LmConfig
from jaxsae.lm.config import gemma2_2b as gemma2_2b
from jaxsae.lm.config import gemma2_9b as gemma2_9b
from jaxsae.lm.config import gemma2_27b as gemma2_27b
from jaxsae.lm.config import gemma2_tiny as gemma2_tiny
from jaxsae.lm.edits import Ablate as Ablate
from jaxsae.lm.edits import Clamp as Clamp
from jaxsae.lm.edits import Edit as Edit
from jaxsae.lm.edits import Patch as Patch
from jaxsae.lm.edits import Splice as Splice
from jaxsae.lm.edits import Steer as Steer
from jaxsae.lm.forward import capture as capture
from jaxsae.lm.forward import edit as edit
from jaxsae.lm.forward import run as run
from jaxsae.lm.forward import splice as splice
from jaxsae.lm.gemma import init_params as init_params
from jaxsae.lm.generation import generate as generate
from jaxsae.lm.lm import Lm as Lm
from jaxsae.lm.loss import next_token_loss as next_token_loss
from jaxsae.lm.sites import Site as Site
from jaxsae.lm.tokenizer import Tokenizer as Tokenizer
from jaxsae.lm.tokenizer import train_tokenizer as train_tokenizer
from jaxsae.lm.weights import load_lm as load_lm
from jaxsae.lm.weights import save_lm as save_lm
