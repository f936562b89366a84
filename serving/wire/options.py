"""What a request asks for beside its rows: in the URL's query, and in `accept`."""

from urllib.parse import parse_qs

from eagleray import errors

_EXPLAIN = {"true": True, "1": True, "false": False, "0": False}


def explain(query: bytes) -> bool:
    """Whether the query asks for contributions by column; RequestError for another value."""
    value = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("explain", ["false"])[-1]
    if value not in _EXPLAIN:
        law = f"explain must be true or false, but got {value[:100]!r}"
        raise errors.RequestError(law, field="explain")
    return _EXPLAIN[value]


def accepts(header: bytes, content_type: bytes) -> bool:
    """Whether an `accept` header names this content type; wildcards do not count."""
    for part in header.lower().split(b","):
        name, _, weight = part.partition(b";")
        if name.strip() == content_type:
            return weight.replace(b" ", b"") not in (b"q=0", b"q=0.0")
    return False
