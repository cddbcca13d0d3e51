"""What adapters to other frameworks are made of.

An adapter imports this package, the public names of ``recallm_core`` and its errors, and nothing
else of the core. Beside ``RecaLLM`` it needs what stands here: messages read into turns whose
characters are known, offsets that are checked and not believed, packing to a budget, and the
arguments under which a model is loaded and called.
"""

from recallm_core.adapting.loading import (
    PARAMS,
    core_names,
    load_arguments,
    load_shared,
    refuse_unknown,
    settings_of,
    unloaded_context_length,
    unloaded_shows_tools,
    without_secrets,
)
from recallm_core.adapting.packing import (
    Count,
    best_passages,
    budget_within,
    common_metadata,
    token_counter,
)
from recallm_core.adapting.places import is_at, nearest, occurrences, proven_place, stable_id
from recallm_core.adapting.turns import (
    NO_RESULTS,
    MessageRange,
    Turn,
    call_text,
    decoded_text,
    found_nothing,
    result_heading,
    turn_of,
    with_system,
)
from recallm_core.backends.vllm.connection import KEY_VARIABLE
from recallm_core.checking import QuoteReport
from recallm_core.decoding.spec import RecallIn
from recallm_core.documents.document import check_text, content_id
from recallm_core.locks import ForkSafeLock
from recallm_core.packing import DEFAULT_OVERHEAD, Order, Overhead
from recallm_core.pointing.fitting import estimated_tokens
from recallm_core.prompting.params import (
    AbstainPolicy,
    AnswerForm,
    Boundary,
    Evidence,
    PriorName,
    Scope,
)
from recallm_core.retrieval.embedding import Floats, GivenVectors, as_embedder
from recallm_core.retrieval.packs import expanded, shipped

__all__ = [
    "DEFAULT_OVERHEAD",
    "KEY_VARIABLE",
    "NO_RESULTS",
    "PARAMS",
    "AbstainPolicy",
    "AnswerForm",
    "Boundary",
    "Count",
    "Evidence",
    "Floats",
    "ForkSafeLock",
    "GivenVectors",
    "MessageRange",
    "Order",
    "Overhead",
    "PriorName",
    "QuoteReport",
    "RecallIn",
    "Scope",
    "Turn",
    "as_embedder",
    "best_passages",
    "budget_within",
    "call_text",
    "check_text",
    "common_metadata",
    "content_id",
    "core_names",
    "decoded_text",
    "estimated_tokens",
    "expanded",
    "found_nothing",
    "is_at",
    "load_arguments",
    "load_shared",
    "nearest",
    "occurrences",
    "proven_place",
    "refuse_unknown",
    "result_heading",
    "settings_of",
    "shipped",
    "stable_id",
    "token_counter",
    "turn_of",
    "unloaded_context_length",
    "unloaded_shows_tools",
    "with_system",
    "without_secrets",
]
