"""The rendezvous of several nodes: torchelastic's own, at a store that listens on the first node's address only."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from datetime import timedelta
from typing import Any

from torch.distributed import TCPStore
from torch.distributed.elastic.rendezvous.api import RendezvousInfo, RendezvousStoreInfo
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler, RendezvousTimeout

from accel_cli.errors import ConfigError, HangError, Problem, ResourceError
from accel_cli.launch.here import Here

HEARTBEAT, MISSED = 2, 4
"""A node that has not been heard of for 2 x 4 seconds is lost. The nodes' clocks may differ by no more than that."""
LAST_CALL = 3
"""Seconds that the least number of nodes waits for more before it begins."""
SILENCE = timedelta(seconds=60)
"""How long the first node may take to answer before it is given up."""
OWN_KEYS = ("launch.interface", "hardware.threads")
OWN_ENDINGS = (".root", ".path")
"""What may differ from node to node: places on a machine, and what its cores ask for."""


class Meeting(DynamicRendezvousHandler):
    """The ranks of every round meet at the agents' store, below a prefix of the round's own."""

    place: Here
    size = 0
    """Nodes in this round."""

    @property
    def use_agent_store(self) -> bool:
        return True

    @property
    def address(self) -> str:
        return self.place.address

    @property
    def round(self) -> int:
        return int(self._state_holder.state.round)

    def next_rendezvous(self) -> RendezvousInfo:
        info = super().next_rendezvous()
        self.size = info.world_size
        return RendezvousInfo(
            info.store, info.rank, info.world_size, RendezvousStoreInfo(self.place.host, self.place.port)
        )

    def standing(self) -> str:
        """``together``; ``awaited``: a node wants to join; ``apart``: one has left; ``closed``: the run has ended."""
        with self._heartbeat_lock:
            self._state_holder.sync()
            state = self._state_holder.state
            if state.closed:
                return "closed"
            if self._this_node not in state.participants or len(state.participants) < self.size:
                return "apart"
            room = len(state.participants) < self._settings.max_nodes
            return "awaited" if state.wait_list and room else "together"

    def leave(self) -> None:
        self._stop_heartbeats()


def meet(place: Here, settings: dict[str, Any]) -> tuple[Meeting, TCPStore]:
    """The meeting of a run's nodes, and the store that lasts through all its rounds.

    Waits for the first node. Raises HangError where it does not come, ConfigError where its configuration is another,
    ResourceError where its port is taken.
    """
    launch = settings["launch"]
    # The store that torch 2.15 would share among rounds is forgotten when a node joins; this meeting brings its own.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if place.interface is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = place.interface
    wait = timedelta(seconds=launch["wait"])
    store = _store(place, launch["rendezvous"], wait)
    _agree(store, place, settings)
    store.set_timeout(min(wait, SILENCE))
    least, _, most = str(launch["nodes"]).partition(":")
    meeting = Meeting.from_backend(
        "accel",
        store,
        C10dRendezvousBackend(store, "accel"),
        int(least),
        int(most or least),
        # Ranks are dealt in the order of these names: rank 0 stays with the first node, and with its disk.
        f"{0 if place.first else 1} {place.address}",
        RendezvousTimeout(join=wait, last_call=timedelta(seconds=LAST_CALL)),
        keep_alive_interval=HEARTBEAT,
        keep_alive_max_attempt=MISSED,
    )
    meeting.place = place
    return meeting, store


def _store(place: Here, rendezvous: str, wait: timedelta) -> TCPStore:
    if not place.first:
        _wait_for(place, rendezvous, wait.total_seconds())
        return TCPStore(place.host, place.port, is_master=False, timeout=wait)
    listener = socket.socket(socket.AF_INET6 if ":" in place.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((place.host, place.port))
    except OSError as error:
        raise ResourceError(
            f"launch.rendezvous={rendezvous}: cannot listen there: {error.strerror}", "try another port, on every node"
        ) from None
    listener.listen(512)
    return TCPStore(
        place.host,
        place.port,
        is_master=True,
        timeout=wait,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
        use_libuv=True,
    )


def _wait_for(place: Here, rendezvous: str, seconds: float) -> None:
    """Until the first node listens; the store's own wait fills the screen with what it is made of."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection((place.host, place.port), timeout=seconds):
            return
        time.sleep(0.2)
    raise HangError(
        f"nobody answered at launch.rendezvous={rendezvous} within {seconds:g} s (launch.wait)",
        "start the same command on the first node, whose address that is",
    )


def _agree(store: TCPStore, place: Here, settings: dict[str, Any]) -> None:
    """Compare this node's configuration with the first node's."""
    mine = flat(settings)
    if place.first:
        store.set("configuration", json.dumps(mine))
        return
    first = json.loads(store.get("configuration"))
    differing = [
        Problem(f"{key}={mine.get(key)}", f"on the first node it is {first.get(key)}", "type the same command on both")
        for key in sorted({*mine, *first})
        if mine.get(key) != first.get(key) and key not in OWN_KEYS and not key.endswith(OWN_ENDINGS)
    ]
    if differing:
        raise ConfigError(differing)


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots; what JSON does not know as its text."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        full = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            found.update(flat(value, f"{full}."))
        else:
            found[full] = json.loads(json.dumps(value, default=str))
    return found
