"""Starlette: uvicorn as it comes, no access log, no batches."""

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.peers.plain import Plain, asked

folder, port = asked()
plain = Plain(folder)


async def predict(request: Request) -> JSONResponse:
    return JSONResponse(plain.predict(await request.json()))


application = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
uvicorn.run(application, port=port, access_log=False, log_level="warning")
