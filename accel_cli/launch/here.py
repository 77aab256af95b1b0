"""Where this node stands among those of a run: the first, which all others find, or one that has to find it.

python -m accel_cli.launch.here HOST:PORT [--node N]      prints what torchrun has to be told on this node
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from accel_cli.config import network
from accel_cli.errors import ConfigError, Problem


@dataclass(frozen=True)
class Here:
    """``host`` is an address: on the first node the one to listen on, elsewhere the first node's."""

    first: bool
    """Whether the rendezvous is an address of this machine. Rank 0 is on this node, and nobody else can replace it."""
    address: str
    """This node's own, as the others see it."""
    host: str
    port: int
    interface: str | None
    """The interface that has ``address``; None where that cannot be told."""


def here(rendezvous: str, interface: str = "auto") -> Here:
    """Look at this machine. Raises ConfigError where no way leads from it to the rendezvous."""
    host, port = network.endpoint(rendezvous) or ("", 0)
    where = f"launch.rendezvous={rendezvous}"
    try:
        found = network.resolve(host)
    except OSError:
        raise ConfigError(Problem(where, f"no host named {host} is known here", "give its address")) from None
    first = network.is_own(found)
    if interface != "auto":
        own = network.addresses(interface)
        if not own:
            raise ConfigError(Problem(f"launch.interface={interface}", "has no address", "try launch.interface=auto"))
        address = own[0]
    else:
        try:
            address = network.own_address(found)
            if network.is_loopback(address):  # /etc/hosts may give a machine's own name 127.0.1.1
                address = network.own_address()
        except OSError as error:
            why = f"no way leads there from this machine: {error.strerror}"
            raise ConfigError(Problem(where, why, "check the address, or name launch.interface")) from None
        interface = network.interface_of(address) or interface
    known = None if interface == "auto" else interface
    return Here(first, address, address if first else found, port, known)


def torchrun_words(rendezvous: str, node: int | None = None) -> str:
    """torchrun's own guess, by host names, fails where a machine has several addresses.

    ``node`` counts this node where a scheduler has numbered them: two may be one machine.
    """
    place = here(rendezvous)
    first = place.first if node is None else node == 0
    return f"--local-addr={place.address} --rdzv-conf=is_host={int(first)}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m accel_cli.launch.here")
    parser.add_argument("rendezvous", metavar="HOST:PORT")
    parser.add_argument("--node", type=int, help="this node's number, where a scheduler has given it one")
    arguments = parser.parse_args()
    print(torchrun_words(arguments.rendezvous, arguments.node))
