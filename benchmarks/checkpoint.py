"""Checkpoints against boto3's own transfer and Ray Train's default path, on one SeaweedFS.

All move the same bytes, one after another in each round, in an order that is drawn for it, so that
none always finds the memory that the same other one has left; figures are medians of the rounds,
ratios medians of each round's:

    eagleray   `blobs.put`, which hashes the content first, and `blobs.download`, which verifies it
    boto3      `upload_file` and `download_file` with its default configuration; verifies nothing
    ray_train  `StorageContext.persist_current_checkpoint` and `Checkpoint.to_directory`, which copy
               a local folder by pyarrow; writing the folder before is not counted

Each begins when what the one before has written is on disk. Each download ends with a file in a
folder of its own, whose file of the round before is deleted just before it begins: memory for a
file of 500 MB that the machine has not used lately costs up to a second on a virtual machine,
more than the transfer itself, and must not depend on who wrote before.

Downloads are measured again through connections of 8 MiB a second each, as those to a distant store
have a bound: what counts there is how many are used.

Then the state of a training is loaded into another one, from storage, with nothing of it on this
machine's disk: by `checkpoints.Checkpoints.restore`, and by `to_directory` and `torch.load`.

A training of a model of real size is then checkpointed three times in a process of its own: how
long it is blocked, how long the upload takes (medians), how much memory that needs above the copy
of its state: the peak from each copy to the end of its upload. Batches between them are not
counted, as they need memory of their own. Last, a process is killed in the middle of an upload:
what a reader sees of it is counted.

Run: python benchmarks/checkpoint.py [--mb 500] [--rounds 5]
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eagleray import spec, storage
from eagleray.state import searches
from eagleray.storage import blobs, cache, server, sinks

MIB = 1 << 20
SAVES = 3
SLOW = 8 * MIB  # bytes a second of each slow connection
SLOW_MB = 100
SEARCH = ("bench", "0123456789ab")
FILE = """
name: bench
data: {{source: "dataset:digits", target: target}}
model: {{type: mlp, hidden: [{width}, {width}]}}
train: {{epochs: 2, batch_size: 512}}
tune: {{trials: 1, scheduler: none}}
storage: {uri}
"""


@dataclass(frozen=True)
class Saved:
    """A checkpoint of a training, as its process measured it."""

    state_mb: float
    blocked_s: float  # while its state was copied
    upload_s: float
    above_mb: float  # at the peak of all saves, above the training at rest and its state's copy


def seconds(work: Callable[[], object], emptied: Path | None = None) -> float:
    os.sync()
    if emptied:
        shutil.rmtree(emptied, ignore_errors=True)
        emptied.mkdir()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def transfers(folder: Path, megabytes: int, rounds: int) -> list[dict[str, float]]:
    """Seconds of each contestant, up and down, in each round."""
    import boto3
    import ray.train

    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(parents=True)
    source = checkpoint / "state"
    source.write_bytes(os.urandom(MIB) * megabytes)
    store, client, train = storage.open("s3://eagleray"), boto3.client("s3"), ray_train()
    kept: dict[str, Any] = {}

    def up() -> None:
        with source.open("rb") as stream:
            kept["blob"] = blobs.put(store, stream)

    def down() -> None:
        with (folder / "eagleray down" / "state").open("wb+") as file:
            blobs.download(store, kept["blob"], sinks.File(file.fileno()))

    def persist() -> None:
        made = ray.train.Checkpoint.from_directory(str(checkpoint))
        kept["train"] = train.persist_current_checkpoint(made, "checkpoint_0")

    work = {
        "eagleray up": up,
        "boto3 up": lambda: client.upload_file(str(source), "eagleray", "boto3"),
        "ray_train up": persist,
        "eagleray down": down,
        "boto3 down": lambda: client.download_file(
            "eagleray", "boto3", str(folder / "boto3 down" / "state")
        ),
        "ray_train down": lambda: kept["train"].to_directory(str(folder / "ray_train down")),
    }
    return in_turn(work, folder, rounds)


def ray_train() -> Any:
    """Ray Train's own storage, on the server of the environment."""
    from ray.train.v2._internal.execution.storage import StorageContext

    endpoint = os.environ["AWS_ENDPOINT_URL_S3"].removeprefix("http://")
    uri = f"s3://eagleray/train?scheme=http&endpoint_override={endpoint}"
    return StorageContext(uri, "bench")


@contextlib.contextmanager
def slow_connections() -> Iterator[None]:
    """In the block, each connection to the server gives answers with `SLOW` bytes a second."""
    direct = os.environ["AWS_ENDPOINT_URL_S3"]
    host, _, port = direct.removeprefix("http://").partition(":")

    async def passed(source: asyncio.StreamReader, sink: asyncio.StreamWriter, rate: float) -> None:
        while data := await source.read(64 << 10):
            sink.write(data)
            await asyncio.gather(sink.drain(), asyncio.sleep(len(data) / rate))
        sink.close()

    async def accept(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(host, port)
        ways = passed(source, requests, float("inf")), passed(answers, sink, SLOW)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.gather(*ways)

    async def serve() -> None:
        ended, listening = asyncio.Event(), await asyncio.start_server(accept, "127.0.0.1", 0)
        own = listening.sockets[0].getsockname()[1]
        started.set_result((asyncio.get_running_loop(), ended, own))
        await ended.wait()

    started = futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]]()
    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    loop, ended, own = started.result()
    os.environ["AWS_ENDPOINT_URL_S3"] = f"http://127.0.0.1:{own}"
    try:
        yield
    finally:
        os.environ["AWS_ENDPOINT_URL_S3"] = direct
        loop.call_soon_threadsafe(ended.set)
        thread.join()


def in_turn(
    work: Mapping[str, Callable[[], object]], folder: Path, rounds: int
) -> list[dict[str, float]]:
    """Seconds of each contestant in each round but the first, which uploads what others read."""
    found, order = [], list(work)
    for number in range(rounds + 1):
        found.append({name: seconds(work[name], folder / name) for name in order})
        random.Random(number).shuffle(order)
    return found[1:]


def trained(folder: Path, uri: str, megabytes: int) -> tuple[Any, Any, Any]:
    """A training in its second epoch whose state has this size, its records and its storage."""
    from ray_jobs import training
    from ray_jobs.data import prepare

    width = int((megabytes * MIB / 4 / 4) ** 0.5)  # weights, best weights, two moments
    file = folder / "bench.yaml"
    file.write_text(FILE.format(width=width, uri=uri))
    chosen = spec.load(file)
    dataset = prepare.dataset(chosen)
    data = dataset.encode(dataset.fit(chosen.default().features))
    trainer = training.Trainer(chosen.default(), data, metric="accuracy")
    trainer.epoch()
    trainer.epoch(lambda: True)  # one batch more: the weights are not those of the best epoch
    store = storage.open(uri)
    return trainer, searches.Records(store, *SEARCH), store


def restores(folder: Path, uri: str, megabytes: int, rounds: int) -> list[dict[str, float]]:
    """Seconds of each contestant until the state of a training is loaded into another one."""
    import ray.train
    import torch

    from ray_jobs import checkpoints

    saved, records, store = trained(folder, uri, megabytes)
    loaded, _, _ = trained(folder, uri, megabytes)
    made = folder / "state of torch"
    made.mkdir()
    state = {
        "model": saved.model.state_dict(),
        "best": saved.best_weights,
        "optimizer": saved.optimizer.state_dict(),
    }
    torch.save(state, made / "state.pt")
    of_folder = ray.train.Checkpoint.from_directory(str(made))
    kept = ray_train().persist_current_checkpoint(of_folder, "checkpoint_state")
    local = cache.Cache(folder / "eagleray restored", cache.LIMIT)
    with futures.ThreadPoolExecutor(1) as pool:
        place = checkpoints.Place(store, records, pool, local)
        saving = checkpoints.Checkpoints(place, 1, {})
        saving.save(saved)
        saving.flush(3600)

        def restore() -> None:
            checkpoints.Checkpoints(place, 1, {}).restore(loaded)

        def load() -> None:
            where = kept.to_directory(str(folder / "ray_train restored"))
            found = torch.load(Path(where, "state.pt"))
            loaded.model.load_state_dict(found["model"])
            loaded.optimizer.load_state_dict(found["optimizer"])
            loaded.best_weights = found["best"]

        work = {"eagleray restored": restore, "ray_train restored": load}
        return in_turn(work, folder, rounds)


def save(folder: Path, uri: str, megabytes: int) -> Saved:
    """Checkpoint a training in this process."""
    from ray_jobs import checkpoints

    trainer, records, store = trained(folder, uri, megabytes)
    with futures.ThreadPoolExecutor(1) as pool:
        place = checkpoints.Place(store, records, pool, cache.default())
        saving = checkpoints.Checkpoints(place, 1, {})
        store.put("warm", b"")
        before, times, peaks = held_mb("VmRSS"), [], []
        for _ in range(SAVES):
            Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held now
            times.append(
                [seconds(lambda: saving.save(trainer)), seconds(lambda: saving.flush(3600))]
            )
            peaks.append(held_mb("VmHWM"))
            trainer.epoch(lambda: True)  # one batch more
        blocked, upload = (statistics.median(one) for one in zip(*times, strict=True))
    saved = records.state(1, {}).checkpoints[0]
    sizes = {name: blob.size / MIB for name, blob in saved.files.items()}
    copied = sizes["model"] + sizes["optimizer"]  # the best weights lie in host memory already
    return Saved(sum(sizes.values()), blocked, upload, max(peaks) - before - copied)


def held_mb(name: str) -> float:
    """Memory of this process, by its name in `/proc/self/status`."""
    (line,) = (
        one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(name)
    )
    return int(line.split()[1]) / 1024


def child(*arguments: object) -> list[str]:
    return [sys.executable, __file__, *map(str, arguments)]


def killed(folder: Path, uri: str, megabytes: int) -> int:
    """Kill a process in the middle of its upload; the objects and states that are seen then."""
    process = subprocess.Popen(child("--save", folder, uri, megabytes), stdout=subprocess.DEVNULL)
    store = storage.open(uri)
    while not _uploading(store):
        if process.poll() is not None:
            raise RuntimeError("the upload must be seen before it ends, but it has ended")
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)
    seen = [one for one in store.list(blobs.PREFIX) if not _whole(store, one)]
    return len(seen) + len(searches.Records(store, *SEARCH).state(1, {}).checkpoints)


def _uploading(store: Any) -> bool:
    """Whether a multipart upload is under way."""
    time.sleep(0.02)
    found = store._client.list_multipart_uploads(Bucket="eagleray", Prefix=store._below)
    return bool(found.get("Uploads"))


def _whole(store: storage.Storage, entry: storage.Entry) -> bool:
    blob = blobs.Blob(entry.key.removeprefix(blobs.PREFIX), entry.size)
    return len(blobs.get(store, blob)) == entry.size


def claim(text: str, figures: dict[str, Any], *, holds: bool) -> None:
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}
    print(json.dumps({"claim": text, **rounded, "holds": holds}), flush=True)


def faster(text: str, rounds: list[tuple[float, float]], target: float) -> None:
    """Claim that the peer takes `target` times as long; `rounds` have our seconds and its."""
    ours, peer = (statistics.median(each) for each in zip(*rounds, strict=True))
    ratio = statistics.median(theirs / own for own, theirs in rounds)
    figures = {"ours": ours, "peer": peer, "ratio": ratio, "target": target}
    claim(text, figures, holds=ratio >= target)


def compared(found: list[dict[str, float]], size: str, ways: tuple[str, ...]) -> None:
    """Claim that we are no slower than each peer that was measured."""
    for way in ways:
        for peer, target in (("boto3", 0.9), ("ray_train", 1.0)):
            if f"{peer} {way}" in found[0]:
                pairs = [(one[f"eagleray {way}"], one[f"{peer} {way}"]) for one in found]
                faster(f"seconds of {size} {way}, {peer} over eagleray", pairs, target)


def report(saved: Saved, seen: int) -> None:
    share = saved.blocked_s / saved.upload_s
    figures = {"ours": saved.blocked_s, "peer": saved.upload_s, "ratio": share, "target": 0.05}
    text = f"seconds that a training is blocked over seconds of the upload, {saved.state_mb:.0f} MB"
    claim(text, figures, holds=share < 0.05)
    figures = {"ours": saved.above_mb, "peer": saved.state_mb, "target": 100}
    claim("MB at the peak above the state's copy", figures, holds=saved.above_mb < 100)
    figures = {"ours": seen, "peer": 0, "target": 0}
    claim("incomplete objects and states seen after a killed upload", figures, holds=seen == 0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mb", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", nargs=3, metavar=("FOLDER", "URI", "MB"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.save:
        folder, uri, size = options.save
        print(json.dumps(vars(save(Path(folder), uri, int(size)))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        running = server.up(folder / "server")
        os.environ.update(server.environment(running))
        try:
            found = transfers(folder, options.mb, options.rounds)
            compared(found, f"{options.mb} MB", ("up", "down"))
            with slow_connections():
                found = transfers(folder / "slow", SLOW_MB, 1)
            compared(found, f"{SLOW_MB} MB by slow connections", ("down",))
            found = restores(folder, "s3://eagleray/loads", options.mb, options.rounds)
            compared(found, f"{options.mb} MB", ("restored",))
            made = subprocess.run(
                child("--save", folder, "s3://eagleray/whole", options.mb),
                check=True,
                stdout=subprocess.PIPE,
            )
            saved = Saved(**json.loads(made.stdout))
            seen = killed(folder, "s3://eagleray/killed", options.mb)
        finally:
            server.down(running.folder)
    report(saved, seen)


if __name__ == "__main__":
    main()
