"""The rendezvous of one machine: a store that listens on loopback only, at a port that the kernel picks."""

from __future__ import annotations

import socket
from datetime import timedelta

from torch.distributed import PrefixStore, TCPStore
from torch.distributed.elastic.rendezvous.api import RendezvousHandler, RendezvousInfo, RendezvousStoreInfo

HOST = "127.0.0.1"


class Loopback(RendezvousHandler):
    """torch's own single-machine rendezvous listens on every interface; this one is handed a bound socket instead."""

    address = HOST

    def __init__(self) -> None:
        listener = socket.socket()
        listener.bind((HOST, 0))
        listener.listen(512)
        self.port: int = listener.getsockname()[1]
        self.store = TCPStore(
            HOST,
            self.port,
            is_master=True,
            timeout=timedelta(seconds=60),
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
            use_libuv=True,
        )
        self.round = -1
        self.size = 1

    @property
    def use_agent_store(self) -> bool:
        return True

    def get_backend(self) -> str:
        return "loopback"

    def get_run_id(self) -> str:
        return "accel"

    def next_rendezvous(self) -> RendezvousInfo:
        self.round += 1
        info = RendezvousStoreInfo(HOST, self.port)
        return RendezvousInfo(PrefixStore(f"agent/{self.round}", self.store), 0, 1, info)

    def standing(self) -> str:
        """One node is never apart."""
        return "together"

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        pass

    def num_nodes_waiting(self) -> int:
        return 0

    def shutdown(self) -> bool:
        return True

    def leave(self) -> None:
        pass
