"""Our application under uvicorn, without Ray Serve and HAProxy."""

import os

import uvicorn

from benchmarks.peers import ours, plain

folder, port = plain.asked()
os.environ[ours.FOLDER] = str(folder)
uvicorn.run(ours.application(), port=port, access_log=False, log_level="warning")
