"""Our application under uvicorn with the connection of our replicas."""

import os

import uvicorn
from starlette.types import Receive, Scope, Send

from benchmarks.peers import ours, plain
from serving import connection, fast_path

folder, port = plain.asked()
os.environ[ours.FOLDER] = str(folder)
application = ours.application()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        fast_path.enable(application)
    await application(scope, receive, send)


uvicorn.run(app, port=port, access_log=False, log_level="warning", http=connection.Connection)
