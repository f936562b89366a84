"""`eagleray --help` against a bare interpreter: nothing heavy is imported before it is needed.

Run: python benchmarks/help.py
"""

import json
import statistics
import subprocess
import sys
import time

ROUNDS = 15
TARGET_S = 0.3


def seconds(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    ours, bare = [], []
    for _ in range(ROUNDS):
        ours.append(seconds("-m", "eagleray", "--help"))
        bare.append(seconds("-c", "pass"))
    median, peer = statistics.median(ours), statistics.median(bare)
    figures = {"ours": round(median, 3), "peer": round(peer, 3), "ratio": round(median / peer, 1)}
    claim = "seconds of eagleray --help; the peer is a bare interpreter, the target is in seconds"
    print(json.dumps({"claim": claim, **figures, "target": TARGET_S, "holds": median < TARGET_S}))


if __name__ == "__main__":
    main()
