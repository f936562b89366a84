"""The application in a process of its own under uvicorn, without Ray: `python -m tests.endpoint`.

Prints a line each quarter of a second: the mean of requests in progress, and how busy it was.
"""

import argparse
import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import uvicorn

from serving import autoscaling, batching, metrics, predictor, web
from tests import bundles


async def serve(port: int, folder: Path) -> None:
    gauges = metrics.Metrics(folder, "left")
    application = web.Application("left", gauges)
    loaded = bundles.make()
    loaded.name, loaded.number = "left", 1
    loaded.golden = bundles.golden(loaded)
    thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
    application.predictor = predictor.Predictor(loaded, batching.Limits(), thread, gauges)
    reports = asyncio.create_task(report(application.ongoing, autoscaling.Busy()))
    config = uvicorn.Config(application, port=port, lifespan="off", log_level="warning")
    await uvicorn.Server(config).serve()
    reports.cancel()


async def report(ongoing: autoscaling.Ongoing, busy: autoscaling.Busy) -> None:
    while True:
        await asyncio.sleep(0.25)
        print(ongoing.average(), busy.share(), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    torch.set_num_threads(1)
    asyncio.run(serve(**vars(parser.parse_args())))
