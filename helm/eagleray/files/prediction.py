"""One real prediction: the example of the model's own API description, asked of the endpoint."""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any


def main(url: str, name: str, patience_s: str) -> None:
    """Ask until an answer comes; its model must be `name`, and it must predict for the row."""
    deadline = time.monotonic() + float(patience_s)
    while True:
        try:
            return check(predict(url, name), name)
        except (OSError, ValueError) as error:  # refused, 503 while a version loads, half an answer
            if time.monotonic() > deadline:
                sys.exit(f"{url}: must predict within {patience_s} s, but: {error}")
            print(f"not yet: {error}", flush=True)
            time.sleep(2)


def predict(url: str, name: str) -> Any:
    """The answer for the example row."""
    key = {"X-Api-Key": os.environ["EAGLERAY_KEY"]} if os.environ.get("EAGLERAY_KEY") else {}
    page = urllib.request.Request(f"{url}/openapi.json", headers=key)  # noqa: S310
    with urllib.request.urlopen(page, timeout=10) as answer:  # noqa: S310
        described = json.load(answer)
    path = f"/v1/models/{name}:predict"
    if path not in described.get("paths", {}):
        raise ValueError(f"no version of {name} is loaded yet")
    body = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
    request = urllib.request.Request(  # noqa: S310 - the release's own endpoint
        url + path, json.dumps(body).encode(), {"Content-Type": "application/json", **key}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return json.load(answer)


def check(answer: dict[str, Any], name: str) -> None:
    """Refuse an answer that is not one prediction by the model asked for."""
    if answer.get("model") != name or len(answer.get("predictions", [])) != 1:
        sys.exit(f"the answer must be one prediction of {name}, but is {answer}")
    print(f"{name} version {answer['version']} predicts {answer['predictions'][0]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
