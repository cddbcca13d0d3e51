"""Time to find the boundaries of a text, by script, beside the regex module's own.

Run: python benchmarks/boundaries.py [characters]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import regex

from recallm_core.text.boundaries import grapheme_boundaries, word_boundaries

SAMPLES = {
    "English prose": 'The court can\'t accept 3,000.5 dollars at 10:30; he said "no".\n',
    "French prose": "Dès l'été, la forêt s'éveille : « où êtes-vous ? », demanda-t-il.\r\n",
    "Chinese": "人工智能研究所在北京成立、吸引了三百名学者。",
    "Japanese": "東京のデータセンターは、2024年に完成しました。",
    "Korean": "한국어 문장은 띄어쓰기로 단어를 나눕니다. ",
    "Hindi": "नमस्ते दुनिया, यह क्षेत्र बहुत सुंदर है। ",
    "Thai": "สวัสดีครับ วันนี้อากาศดีมาก ",
    "Arabic": "مرحبا بالعالم، هذا نص عربي 1234. ",
    "emoji": "👩‍👩‍👧‍👦🇩🇪👍🏽 ok ",
}


def milliseconds(run: Callable[[], object], rounds: int = 7) -> float:
    """Returns the median time of a few calls, after one to warm up."""
    run()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * median(times)


def main() -> None:
    """Prints the table."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 500_000
    word, grapheme = regex.compile(r"(?w)\b"), regex.compile(r"\X")
    print(f"{size:,} characters, ms     graphemes  + words   regex \\X  regex \\b")
    for name, sample in SAMPLES.items():
        text = (sample * (size // len(sample) + 1))[:size]
        marks = grapheme_boundaries(text)
        times = (
            milliseconds(lambda text=text: grapheme_boundaries(text)),
            milliseconds(lambda text=text, marks=marks: word_boundaries(text, marks)),
            milliseconds(lambda text=text: [m.end() for m in grapheme.finditer(text)], 1),
            milliseconds(lambda text=text: [m.end() for m in word.finditer(text)], 1),
        )
        print(f"{name:<24}" + "".join(f"{value:>10.1f}" for value in times))


if __name__ == "__main__":
    main()
