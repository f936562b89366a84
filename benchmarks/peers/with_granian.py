"""Our application under granian, a server in Rust: one worker."""

import os
import sys
from pathlib import Path

from benchmarks.peers import ours, plain

folder, port = plain.asked()
program = str(Path(sys.executable).with_name("granian"))
options = ["--interface", "asgi", "--factory", "--port", str(port), "--workers", "1", "--no-ws"]
environment = os.environ | {ours.FOLDER: str(folder)}
os.execve(program, [program, *options, "benchmarks.peers.ours:application"], environment)
