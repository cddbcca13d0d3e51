"""A source map whose stretches and places don't belong together can't be made."""

from typing import Any

import pytest

from recallm_core.documents.source_map import SourceMap
from recallm_core.errors import DocumentError


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"starts": ()}, "ascend from 0"),
        ({"starts": (1, 2)}, "ascend from 0"),
        ({"starts": (0, 2, 2)}, "ascend from 0"),
        ({"starts": (0, 1.5)}, "starts must be whole numbers"),
        ({"starts": (0, True)}, "starts must be whole numbers"),
        ({"lines": ("1",)}, "lines must be whole numbers"),
        ({"pages": (1, 2)}, "one of its pages for each of its 1 starts, got 2"),
        ({"starts": (0, 3), "places": ("slide 1",)}, "one of its places for each of its 2 starts"),
    ],
)
def test_stretches_that_fit_no_text_are_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(DocumentError, match=why):
        SourceMap("a.pdf", **fields)
