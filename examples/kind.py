"""A cluster on this machine, and the whole story on it: `make kind-up`, `kind-demo`, `kind-down`.

Everything is done by commands that are printed before they run; `--dry-run` only prints them.
kind's nodes need 4 CPUs and 12 GB of the container engine's memory. kubectl's own settings are left
alone: the cluster's are in a file of their own, which `up` names.
"""

import argparse
import base64
import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".eagleray" / "kind"
CLUSTER, NAMESPACE, MODEL = "eagleray", "ml", "digits"
IMAGE = "eagleray:0.1.0"
OPERATOR = "1.7.0"
GATE = "GCSFaultToleranceEmbeddedStorage"  # for ray.faultTolerance.embedded, which VALUES sets
VALUES = "helm/eagleray/ci/cpu-kind-values.yaml"
STORE, SERVE = 8333, 8000
PATIENCE_S = 600
SOURCES = {
    "kind": "https://kind.sigs.k8s.io/docs/user/quick-start/#installation",
    "kubectl": "https://kubernetes.io/docs/tasks/tools/",
    "helm": "https://helm.sh/docs/intro/install/",
    "docker": "https://docs.docker.com/engine/install/, or podman",
}


def main() -> int:
    """Do one of the three; 0 when all went well."""
    parser = argparse.ArgumentParser(description="A cluster on this machine, by kind.")
    parser.add_argument("what", choices=["up", "demo", "down"])
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run none")
    asked = parser.parse_args()
    os.environ["KUBECONFIG"] = str(HOME / "kubeconfig")
    os.chdir(ROOT)
    shell = Shell(dry=asked.dry_run)
    if not asked.dry_run and (absent := missing(asked.what)):
        print("\n".join(absent), file=sys.stderr)
        return 2
    {"up": up, "demo": demo, "down": down}[asked.what](shell)
    return 0


def missing(what: str) -> list[str]:
    """A line for each program that is needed and not on PATH, with where to get it."""
    needed = {"up": list(SOURCES), "demo": ["kubectl", "helm"], "down": ["kind"]}[what]
    absent = [each for each in needed if not shutil.which(each)]
    if "docker" in absent and shutil.which("podman"):
        absent.remove("docker")
    return [f"make kind-{what}: needs {each}, see {SOURCES[each]}" for each in absent]


class Shell:
    """Prints commands and runs them; when `dry`, it only prints."""

    def __init__(self, *, dry: bool) -> None:
        self.dry = dry
        self.environment = dict(os.environ)

    def run(self, command: str) -> None:
        """One command; the script ends where one fails."""
        print(f"$ {command}", flush=True)
        if not self.dry:
            ended = subprocess.run(shlex.split(command), env=self.environment, check=False)
            if ended.returncode:
                sys.exit(f"failed: {command}")

    def ask(self, command: str) -> str:
        """What a command prints; nothing when dry, or when it fails."""
        if self.dry:
            print(f"$ {command}")
            return ""
        words = shlex.split(command)
        found = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=False
        )
        return found.stdout

    @contextlib.contextmanager
    def beside(self, command: str, port: int) -> Iterator[None]:
        """A command that runs for the time of the block, once it listens at a port."""
        print(f"$ {command} &", flush=True)
        if self.dry:
            yield
            return
        running = subprocess.Popen(
            shlex.split(command), env=self.environment, stdout=subprocess.DEVNULL
        )
        try:
            _listening(running, port)
            yield
        finally:
            running.terminate()
            running.wait()


def up(shell: Shell) -> None:
    """kind, KubeRay's operator, and our image on the node."""
    HOME.mkdir(parents=True, exist_ok=True)
    podman = shutil.which("podman") and not shutil.which("docker")
    if podman:
        shell.environment["KIND_EXPERIMENTAL_PROVIDER"] = "podman"
    say("A cluster of one node")
    if CLUSTER in shell.ask("kind get clusters").split():
        shell.run(f"kind export kubeconfig --name {CLUSTER}")
    else:
        shell.run(f"kind create cluster --name {CLUSTER} --wait 180s")
    say("KubeRay's operator")
    shell.run(
        "helm upgrade --install kuberay-operator kuberay-operator"
        " --repo https://ray-project.github.io/kuberay-helm"
        f" --version {OPERATOR} --namespace kuberay-system --create-namespace"
        f" --set 'featureGates[0].name={GATE}' --set 'featureGates[0].enabled=true'"
        " --wait --timeout 10m"
    )
    say("The one image that the chart needs")
    if podman:  # named in full, as the node's containerd completes the short name
        archive = HOME / "image.tar"
        shell.run(f"podman build -t docker.io/library/{IMAGE} .")
        shell.run(f"podman save -o {archive} docker.io/library/{IMAGE}")
        shell.run(f"kind load image-archive {archive} --name {CLUSTER}")
    else:
        shell.run(f"docker build -t {IMAGE} .")
        shell.run(f"kind load docker-image {IMAGE} --name {CLUSTER}")
    print(f"\nexport KUBECONFIG={HOME / 'kubeconfig'}\nnext: make kind-demo")


def demo(shell: Shell) -> None:
    """From a file to an endpoint that scales."""
    kubectl = f"kubectl --namespace {NAMESPACE}"
    say("The chart: an endpoint that waits for its first model, and storage to try it out")
    shell.run(
        f"helm upgrade --install {MODEL} helm/eagleray --namespace {NAMESPACE}"
        f" --create-namespace --values {VALUES} --set serving.replicas.targetOngoing=4"
        f" --set-string kuberay.version={OPERATOR.rpartition('.')[0]}"
    )
    shell.run(f"{kubectl} rollout status statefulset/{MODEL}-store --timeout={PATIENCE_S}s")
    say("A search as a RayJob: its file travels through storage")
    with storage(shell, kubectl):
        shell.run(
            f"{sys.executable} -m eagleray run examples/digits.yaml --kubernetes"
            f" --namespace {NAMESPACE} --set storage=s3://models --set tune.trials=4"
        )
    say("Its winner is the champion: the endpoint becomes ready")
    shell.run(f"{kubectl} wait --for=condition=Ready rayservice/{MODEL} --timeout={PATIENCE_S}s")
    with shell.beside(f"{kubectl} port-forward svc/{MODEL}-serve-svc {SERVE}", SERVE):
        shell.run(curl(shell))
    say("Load from a pod: more replicas, more pods; without it, fewer")
    scale(shell, kubectl)
    print(f"\nleft running: {kubectl} get rayservice,pods\nend it: make kind-down")


def down(shell: Shell) -> None:
    """The cluster with all that is in it."""
    shell.run(f"kind delete cluster --name {CLUSTER}")
    if not shell.dry:
        shutil.rmtree(HOME, ignore_errors=True)


@contextlib.contextmanager
def storage(shell: Shell, kubectl: str) -> Iterator[None]:
    """The release's S3 server on this machine, and its keys in the environment."""
    said = shell.ask(f"{kubectl} get secret {MODEL}-store -o json")
    keys = json.loads(said)["data"] if said else {}
    found = {name: base64.b64decode(text).decode() for name, text in keys.items()}
    endpoint = {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{STORE}"}
    shell.environment |= {**found, **endpoint}
    with shell.beside(f"{kubectl} port-forward svc/{MODEL}-store {STORE}", STORE):
        yield


def curl(shell: Shell) -> str:
    """A curl with the example row of the model's own description."""
    url, body = f"http://127.0.0.1:{SERVE}", "{}"
    if not shell.dry:
        with urlopen(f"{url}/openapi.json", timeout=30) as answer:
            post = json.load(answer)["paths"]["/predict"]["post"]
        body = json.dumps(post["requestBody"]["content"]["application/json"]["example"])
    return f"curl -sS {url}/predict -H 'content-type: application/json' -d {shlex.quote(body)}"


def scale(shell: Shell, kubectl: str) -> None:
    """Put load on the endpoint and take it away; show the pods follow."""
    program = Path("examples/load.py").read_text()
    start = f"{kubectl} run load --image={IMAGE} --image-pull-policy=Never --restart=Never"
    url = f"http://{MODEL}-serve-svc.{NAMESPACE}.svc:{SERVE}"
    asked = f"{url} {MODEL} --connections 24 --rows 50 --pause 0"
    end = f"{kubectl} delete pod load --ignore-not-found --grace-period=1"
    shell.run(end)
    print(f'$ {start} --command -- python -c "$(cat examples/load.py)" {asked}', flush=True)
    if not shell.dry:
        whole = [*shlex.split(f"{start} --command -- python -c"), program, *shlex.split(asked)]
        subprocess.run(whole, env=shell.environment, check=True)
    try:
        pods(shell, kubectl, at_least=2)
        shell.run(f"{kubectl} logs load --tail=1")
    finally:
        shell.run(end)
    pods(shell, kubectl, at_most=1)


def pods(shell: Shell, kubectl: str, *, at_least: int = 0, at_most: int = 99) -> None:
    """Print how many workers are ready, at each change, until they are as many as wanted."""
    workers = f"-l app.kubernetes.io/instance={MODEL},eagleray/role=worker"
    serving = f"{workers},app.kubernetes.io/component=serving"
    command = f"{kubectl} get pods {serving} --no-headers"
    print(f"  until {at_least} to {at_most} are ready:" if shell.dry else "", flush=True)
    until, shown = time.monotonic() + PATIENCE_S, None
    while time.monotonic() < until:
        lines = shell.ask(command).splitlines()
        ready = sum(" 1/1 " in line for line in lines)
        if (ready, len(lines)) != shown:
            print(f"  {len(lines)} worker pods, {ready} ready", flush=True)
            shown = (ready, len(lines))
        if shell.dry or (at_least <= ready and len(lines) <= at_most):
            return
        time.sleep(2)
    sys.exit(f"not {at_least} to {at_most} worker pods within {PATIENCE_S} s: {command}")


def say(what: str) -> None:
    """A headline."""
    print(f"\n== {what}", flush=True)


def _listening(running: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and running.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2):
            return
        time.sleep(0.2)
    sys.exit(f"nothing listens at port {port} of this machine; is it taken by another program?")


if __name__ == "__main__":
    sys.exit(main())
