"""The page at `/docs`: Swagger UI, served from the installed package without internet access."""

from functools import cache

CONTENT_TYPES = {
    "/docs": b"text/html; charset=utf-8",
    "/docs/swagger-ui.css": b"text/css; charset=utf-8",
    "/docs/swagger-ui-bundle.js": b"text/javascript; charset=utf-8",
    "/docs/favicon-32x32.png": b"image/png",
}
"""Content types of the page and its files, by path."""

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


@cache
def content(path: str) -> bytes:
    """Return the page or one of its files."""
    from swagger_ui_bundle import swagger_ui_path

    name = path.removeprefix("/docs/")
    return _PAGE if path == "/docs" else (swagger_ui_path / name).read_bytes()
