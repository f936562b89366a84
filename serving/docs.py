"""The page at `/docs`: Swagger UI, served from the installed package without internet access."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

_ASSETS = {
    "swagger-ui.css": b"text/css; charset=utf-8",
    "swagger-ui-bundle.js": b"text/javascript; charset=utf-8",
    "favicon-32x32.png": b"image/png",
}

_PAGE = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Prediction API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", tryItOutEnabled: true})
</script>
</body>
</html>
"""


@dataclass(frozen=True)
class File:
    """Content of a path."""

    content: bytes
    content_type: bytes


def file(path: str) -> File | None:
    """Return the page or one of its files; None for any other path."""
    if path == "/docs":
        return File(_PAGE, b"text/html; charset=utf-8")
    name = path.removeprefix("/docs/")
    return _asset(name) if path.startswith("/docs/") and name in _ASSETS else None


@cache
def _asset(name: str) -> File:
    from swagger_ui_bundle import swagger_ui_path

    return File((swagger_ui_path / name).read_bytes(), _ASSETS[name])
