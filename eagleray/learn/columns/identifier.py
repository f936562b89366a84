"""`identifier`: values that only identify rows; no model learns from them."""

from eagleray.learn.columns.words import WordKind


class Identifier(WordKind):
    name = "identifier"
    need = "text"
    is_input = False
    target = None


IDENTIFIER = Identifier()
