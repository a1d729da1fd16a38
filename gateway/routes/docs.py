"""Where a browser begins: the first page, and what the HTTP interface offers, with a viewer that is shipped along."""

from functools import cache
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from gateway.problems import Problem

router = APIRouter(include_in_schema=False)

# The viewer is Swagger UI, out of the package `fastapi-offline`; of its files these two are served.
_FILES: Final = {"swagger-ui-bundle.js": "text/javascript; charset=utf-8", "swagger-ui.css": "text/css; charset=utf-8"}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Enrollment gateway</title>
  <link rel="icon" href="data:,">
  <link rel="stylesheet" href="/docs/swagger-ui.css">
  <script src="/docs/swagger-ui-bundle.js" defer></script>
  <script src="/docs/start.js" defer></script>
</head>
<body><div id="docs"></div></body>
</html>
"""
_START: Final = """SwaggerUIBundle({ url: "/openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null });
"""


@router.get("/")
async def begin(request: Request) -> Response:
    """Lead a browser to the first page. Raises Problem for other programs, which get what they would get elsewhere."""
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("/admin", 303)
    raise Problem(404, "not_found", "There is nothing at this address; /openapi.json tells what there is.")


@router.get("/docs")
async def show() -> Response:
    """Show the OpenAPI document."""
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache", "X-Frame-Options": "DENY"}
    return Response(_PAGE, headers=headers, media_type="text/html")


@router.get("/docs/start.js")
async def start() -> Response:
    """Return what starts the viewer."""
    return Response(_START, media_type="text/javascript")


@router.get("/docs/{name}")
async def viewer(name: str) -> Response:
    """Return a file of the viewer. Raises Problem."""
    if name not in _FILES:
        raise Problem(404, "not_found", "There is no such file.")
    return Response(_file(name), headers={"Cache-Control": "public, max-age=86400"}, media_type=_FILES[name])


@cache
def _file(name: str) -> bytes:
    return files("fastapi_offline").joinpath("static", name).read_bytes()
