"""Create a RayJob, named by $NAME, from the file given; that it exists already is fine."""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def main(file: str, account: Path = ACCOUNT) -> None:
    """Post the RayJob to the API of the cluster that this pod runs in."""
    job = json.loads(Path(file).read_text())
    job["metadata"]["name"] = name = os.environ["NAME"]
    namespace, token = ((account / key).read_text() for key in ("namespace", "token"))
    server = os.environ.get("KUBERNETES_API", "https://kubernetes.default.svc")
    request = urllib.request.Request(  # noqa: S310 - the cluster's own API
        f"{server}/apis/ray.io/v1/namespaces/{namespace}/rayjobs",
        json.dumps(job).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    authority = account / "ca.crt"
    trusted = ssl.create_default_context(cafile=str(authority)) if authority.exists() else None
    try:
        urllib.request.urlopen(request, timeout=30, context=trusted).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        answer = error.read().decode(errors="replace")
        if error.code != 409:
            sys.exit(f"RayJob {name}: must be created, but got {error.code}: {answer}")
        print(f"RayJob {name} exists already")
        return
    print(f"RayJob {name} created; follow it with: kubectl -n {namespace} get rayjob {name}")


if __name__ == "__main__":
    main(sys.argv[1])
