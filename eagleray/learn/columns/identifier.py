"""`identifier`: values that only identify rows; no model learns from them."""

from __future__ import annotations

from eagleray.learn.columns.words import WordKind


class Identifier(WordKind):
    name = "identifier"
    need = "text"
    is_input = False
    target = None


IDENTIFIER = Identifier()
