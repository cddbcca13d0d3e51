"""The scripts that are written without spaces, in one place for all who read words."""

from __future__ import annotations

# Ranges for a set of a regular expression: Thai, Lao, Burmese, Khmer, kana, Han (with extensions).
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
