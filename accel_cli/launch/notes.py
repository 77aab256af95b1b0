"""Notes: what the nodes of a run leave in its store for each other."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

from torch.distributed import Store

from accel_cli.launch.first_failure import LOST, Failure

PATIENCE = 2.0
"""Seconds that other nodes are given to say what happened to them."""


class Notes:
    """``run`` is the store that lasts through all rounds; every round has one of its own."""

    def __init__(self, run: Store) -> None:
        self.run = run
        self.round: Store = run
        self.number = self.me = 0
        self.nodes = 1

    def begin(self, store: Store, number: int, nodes: int, me: int, address: str) -> None:
        """A round of ``nodes`` nodes has begun; ``me`` counts this one among them."""
        self.round, self.number, self.nodes, self.me = store, number, nodes, me
        store.set(f"node/{me}", address)

    def cause(self, mine: Failure | None) -> Failure:
        """Why the round failed: the cause on any node, where this one has only been left alone; else who is silent."""
        self.run.set(f"failed/{self.number}", "")
        if mine is not None:
            self.round.set(f"failure/{self.me}", json.dumps(asdict(mine)))
            if not mine.echo:
                return mine
        end = time.monotonic() + PATIENCE
        while True:
            said = [n for n in range(self.nodes) if self.round.check([f"failure/{n}"])]
            found = [Failure(**json.loads(self.round.get(f"failure/{n}"))) for n in said]
            if causes := [failure for failure in found if not failure.echo]:
                return causes[0]
            if len(said) == self.nodes or time.monotonic() > end:
                break
            time.sleep(0.02)
        if silent := [n for n in range(self.nodes) if n not in said and n != self.me]:
            address = self.round.get(f"node/{silent[0]}").decode()
            return Failure(None, None, LOST, f"the node {address} was lost", "", None, 3)
        return found[0] if found else Failure(None, None, LOST, "another node left the run", "", None, 3)

    def failed_rounds(self) -> int:
        """However many ranks and nodes a failure took down, it counts once."""
        return sum(self.run.check([f"failed/{n}"]) for n in range(self.number + 1))

    def ended(self, how: dict[str, Any]) -> None:
        """How the run ended; the first to say so is believed."""
        self.run.compare_set("end", "", json.dumps(how))

    def end(self) -> dict[str, Any] | None:
        return json.loads(self.run.get("end")) if self.run.check(["end"]) else None

    def leave(self) -> None:
        """The store is the first node's, which waits a little for the others to have read it."""
        left, end = self.run.add("left", 1), time.monotonic() + PATIENCE
        while self.me == 0 and left < self.nodes and time.monotonic() < end:
            time.sleep(0.02)
            left = self.run.add("left", 0)
