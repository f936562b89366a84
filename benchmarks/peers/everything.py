"""`eagleray serve` with API keys, a capture of a tenth of the requests, and a split of 5 %."""

import signal
import time

from benchmarks.peers.plain import KEY, NAME, asked
from eagleray import apikeys
from eagleray.api import models
from eagleray.state.rollouts import Plan
from serving import local
from serving.settings import Settings

folder, port = asked()
uri = folder.as_uri()
keys = folder / "keys"
line = apikeys.Key("benchmark", frozenset({"predict"}), apikeys.digest(KEY.encode())).line()
keys.write_text(line)
settings = Settings(
    name=NAME, storage=uri, alias="split", max_replicas=1, keys_file=str(keys), capture=0.1
)
plan = Plan(mode="split", steps=(0.05,), deadline_s=3600.0)
models.models(uri)[NAME].roll_out(2, "split", plan=plan)
signal.signal(signal.SIGTERM, signal.default_int_handler)
with local.serving(settings, port=port):
    while True:  # a signal that another thread gets does not end a pause
        time.sleep(1)
