"""An adapter's page: what stands on every one, and a mixture in words."""

from __future__ import annotations

from recallm_core.train.adapter_page import adapter_page, shares


def test_a_page_tells_what_it_goes_on_and_how_to_compare_it() -> None:
    page = adapter_page(
        "maker/base",
        "smol",
        about="An adapter.",
        training="Ten steps.",
        other="its base",
        commands=("recallm eval cited --model smol", "recallm eval cited --model maker/base"),
    )
    _, front, body = page.split("---\n", 2)
    assert "base_model: maker/base" in front.splitlines()
    assert body.split("\n## ")[0].strip().startswith("# smol\n\nAn adapter.")
    assert "\n## Training\n\nTen steps.\n" in body
    assert "compare it with its base:\n\n```\nrecallm eval cited --model smol\nrecallm" in body
    assert page.endswith("```\n")


def test_a_mixture_is_told_the_largest_share_first() -> None:
    assert shares({"hops": 0.25, "fact": 0.75, "absent": 0.0}) == "fact 75%, hops 25%"
