"""`python -m tests.chaos`: kills and pauses over several searches; a line for each event.

The last line is a summary in JSON; the exit status is 1 if anything is broken.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from typing import Any

from eagleray.state import leases
from tests.chaos import checks, cluster, plan, searched

EVENTS = 30
PAUSE_S = leases.TTL_S + 5
"""Longer than a lease lasts."""
TAKEOVER_S = 90.0
"""Another driver has started by then, and has waited for the lease."""
SEARCH_S = 900.0
"""A search that takes longer hangs."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--events", type=int, default=EVENTS)
    options = parser.parse_args()
    summary = Chaos(options.seed, options.events).run()
    print(json.dumps(summary), flush=True)
    return 1 if summary["broken"] else 0


class Chaos:
    """One run: searches one after another on one cluster."""

    def __init__(self, seed: int, events: int) -> None:
        self._seed, self._plan, self._began = seed, plan.draw(seed, events), time.monotonic()
        self._say(f"seed {seed}: repeat with make chaos SEED={seed}")
        self._happened: Counter[str] = Counter()
        self._broken: list[str] = []
        self._numbers: Counter[str] = Counter()
        self._searches, self._late = 0, list[plan.Event]()

    def run(self) -> dict[str, Any]:
        """Run all searches; return the summary."""
        self._cluster = cluster.Cluster(self._say)
        os.environ.update(self._cluster.environment)
        try:
            for planned in self._plan:
                self._search(planned.kind, planned.events)
            while self._late and not self._broken:
                self._search(plan.KINDS[-1], ())
        finally:
            self._cluster.close()
        return {
            "seed": self._seed,
            "searches": self._searches,
            "events": self._happened.total(),
            **self._numbers,
            "happened": dict(sorted(self._happened.items())),
            "seconds": round(time.monotonic() - self._began),
            "broken": self._broken,
        }

    def _search(self, kind: str, events: tuple[plan.Event, ...]) -> None:
        """Run a search; what came too late for the one before happens to this one."""
        self._searches += 1
        name, uri = f"{kind}-{self._searches}", self._cluster.uri
        one = searched.Searched(name, searched.KINDS[kind], self._cluster.folder / name, uri)
        due = sorted((*self._late, *events), key=lambda event: event.after)
        self._say(f"search {one.name}: {len(due)} events")
        drivers = cluster.Drivers(self._cluster, one, self._say)
        try:
            with searched.Watch(one) as watch:
                self._late = self._run(due, one, drivers)
        finally:
            drivers.kill()
        self._check(one, drivers, watch.seen)

    def _run(
        self, events: list[plan.Event], one: searched.Searched, drivers: cluster.Drivers
    ) -> list[plan.Event]:
        """Wait until a search has ended; return the events that it was too short for."""
        until = time.monotonic() + SEARCH_S
        while not self._tend(drivers):
            due = events and one.progress() >= events[0].after
            if due and self._let_happen(events[0], one, drivers):
                events.pop(0)
            if time.monotonic() > until:
                self._break(f"{one.name}: must end, but hangs at {one.progress():.2f}")
                break
            time.sleep(0.1)
        return events

    def _tend(self, drivers: cluster.Drivers) -> bool:
        """Start again what is lost; True once the search has ended."""
        if self._cluster.tend():
            drivers.kill()  # they live on the head's machine
        return drivers.tend()

    def _let_happen(
        self, event: plan.Event, one: searched.Searched, drivers: cluster.Drivers
    ) -> bool:
        """Kill or pause; False if there is no such process now."""
        pids = {
            "worker": lambda: [pid for pid in one.workers() if cluster.alive(pid)],
            "raylet": self._cluster.raylets,
            "driver": lambda: [pid for pid in drivers.alive() if pid == one.lease()[0]],
            "head": self._cluster.gcs,
            "s3": self._cluster.s3,
        }[event.victim]()
        if not pids:
            return False
        pid = pids[int(event.pick * len(pids))]
        self._say(f"{one.name} at {one.progress():.2f}: {event.act} {event.victim} {pid}")
        self._happened[f"{event.act} {event.victim}"] += 1
        if event.act == "kill":
            cluster.send(pid, signal.SIGKILL)
            return True
        self._pause(pid, one, drivers, driver=event.victim == "driver")
        self._say(f"{one.name} at {one.progress():.2f}: {event.victim} {pid} goes on")
        return True

    def _pause(
        self, pid: int, one: searched.Searched, drivers: cluster.Drivers, *, driver: bool
    ) -> None:
        """Stop a process past the lease: a driver until another one has taken over."""
        _, fence = one.lease()
        cluster.send(pid, signal.SIGSTOP)
        if driver:
            drivers.start()  # somebody submits it again
        until = time.monotonic() + (TAKEOVER_S if driver else PAUSE_S)
        while time.monotonic() < until and not (driver and one.lease()[1] > fence):
            self._tend(drivers)
            time.sleep(0.1)
        if driver and one.lease()[1] == fence:
            self._break(f"{one.name}: another driver must take over within {TAKEOVER_S:g} s")
        cluster.send(pid, signal.SIGCONT)

    def _check(
        self, one: searched.Searched, drivers: cluster.Drivers, seen: list[searched.Seen]
    ) -> None:
        records, lives = one.records.trials(), one.lives()
        found = [
            *checks.trials(one, records),
            *checks.curves(one, records),
            *checks.contents(one, records),
            *checks.version(one, drivers.results),
        ]
        if not one.kind.packed:
            found += checks.repeated(lives, seen)
            found += checks.whole(lives, one.kind.epochs * one.batches)
            self._numbers["passes"] += sum(len(life.places) for life in lives)
            self._numbers["needed"] += sum(record.epoch for record in records) * one.batches
        self._numbers["trials"] += len(records)
        self._numbers["drivers"] += drivers.count
        for what in found:
            self._break(what)
        self._say(f"search {one.name} has ended, {len(found)} broken, {drivers.count} drivers")

    def _break(self, what: str) -> None:
        self._broken.append(what)
        self._say(f"BROKEN {what}")

    def _say(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
