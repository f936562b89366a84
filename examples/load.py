"""Requests to an endpoint until the pod is ended; a line of JSON a second, counts since the start.

Runs inside a cluster, in a pod of the release's own image, and knows nothing but Python: its text
may travel in a command line. `--connections` make a new connection for each request, so that a
Service spreads them over its pods; `--kept` ones are kept open, as by most clients.

    python load.py URL MODEL --connections 2 --kept 0 --rows 1 --pause 0.1
"""

import argparse
import collections
import http.client
import json
import socket
import threading
import time
import urllib.request
from urllib.parse import urlsplit


class Answers:
    """What was answered; written by all threads."""

    def __init__(self) -> None:
        self.versions: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()
        self.latest = ""
        self._lock = threading.Lock()

    def add(self, version: str, error: str) -> None:
        with self._lock:
            if error:
                self.errors[error] += 1
            else:
                self.versions[version] += 1
                self.latest = version

    def line(self) -> str:
        with self._lock:
            said = {
                "answered": sum(self.versions.values()),
                "failed": sum(self.errors.values()),
                "versions": dict(self.versions),
                "errors": dict(self.errors),
                "latest": self.latest,
            }
        return json.dumps(said)


def main() -> None:
    """Ask from several threads, and print a line a second."""
    asked = _arguments()
    parts = urlsplit(asked.url)
    # Once: what is measured is the endpoint, not the cluster's DNS.
    address = (socket.gethostbyname(parts.hostname), parts.port)
    body = _body(asked.url, asked.model, asked.rows, asked.patience)
    path = f"/v1/models/{asked.model}:predict"
    answers = Answers()
    for number in range(asked.connections + asked.kept):
        client = _Client(address, path, body, kept=number >= asked.connections)
        arguments = (client, asked.pause, answers)
        threading.Thread(target=_ask, args=arguments, daemon=True).start()
    until = time.monotonic() + asked.seconds
    while time.monotonic() < until:
        time.sleep(1)
        print(answers.line(), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--kept", type=int, default=0)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.1)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--patience", type=float, default=120)  # seconds until the first answer
    return parser.parse_args()


def _body(url: str, model: str, rows: int, patience_s: float) -> bytes:
    """The example of the model's own description, as many times as there shall be rows."""
    until = time.monotonic() + patience_s
    while True:
        try:
            with urllib.request.urlopen(f"{url}/openapi.json", timeout=10) as answer:
                post = json.load(answer)["paths"][f"/v1/models/{model}:predict"]["post"]
            example = post["requestBody"]["content"]["application/json"]["example"]
            return json.dumps({"instances": example["instances"][:1] * rows}).encode()
        except (OSError, ValueError, KeyError):
            if time.monotonic() > until:
                raise
            time.sleep(1)


class _Client:
    """One connection after the other, or one that is kept until the server closes it."""

    def __init__(self, address: tuple[str, int], path: str, body: bytes, *, kept: bool) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=30)
        self._path, self._body, self._kept = path, body, kept

    def ask(self) -> tuple[str, str]:
        """The version that answered, or what went wrong."""
        try:
            headers = {"content-type": "application/json"}
            self._connection.request("POST", self._path, self._body, headers)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as failure:
            self._connection.close()  # the next request opens another
            return "", type(failure).__name__
        if not self._kept:
            self._connection.close()
        if answer.status != 200:
            return "", str(answer.status)
        return answer.getheader("x-eagleray-version", ""), ""


def _ask(client: _Client, pause: float, answers: Answers) -> None:
    while True:
        answers.add(*client.ask())
        time.sleep(pause)


if __name__ == "__main__":
    main()
