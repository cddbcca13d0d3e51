"""The name under which LlamaIndex's users look for it; all of it is ``llama_index_recallm``."""

from llama_index_recallm import *  # noqa: F403
from llama_index_recallm import __all__ as __all__
