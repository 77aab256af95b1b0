"""This machine's place on the network, without torch: its interfaces, its addresses, and the way to another host."""

from __future__ import annotations

import fcntl
import ipaddress
import re
import socket
import struct
from contextlib import closing, suppress
from pathlib import Path

ENDPOINT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\s\[\]]+):(\d{1,5})")
ANYWHERE = "192.0.2.1"
"""An address that is nobody's (RFC 5737): the way to it is the default route. Nothing is sent."""
SIOCGIFADDR = 0x8915


def endpoint(text: str) -> tuple[str, int] | None:
    """(host, port) of ``host:port`` or ``[address]:port``; None where it is neither."""
    found = ENDPOINT.fullmatch(text)
    if found is None or not 0 < int(found[2]) < 65536:
        return None
    return found[1].strip("[]"), int(found[2])


def resolve(host: str) -> str:
    """The first address of a host. Raises OSError where the name is unknown."""
    return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def is_own(address: str) -> bool:
    """Whether this machine has the address: only then can it be bound."""
    with closing(socket.socket(_family(address))) as trial, suppress(OSError):
        trial.bind((address, 0))
        return True
    return False


def own_address(toward: str = ANYWHERE) -> str:
    """The address that others see when this machine speaks to ``toward``. Raises OSError where no way leads there."""
    with closing(socket.socket(_family(toward), socket.SOCK_DGRAM)) as trial:
        trial.connect((toward, 9))
        return str(trial.getsockname()[0])


def interfaces() -> tuple[str, ...]:
    return tuple(name for _, name in socket.if_nameindex())


def interface_of(address: str) -> str | None:
    """The interface that has the address; None where that cannot be told (only Linux tells)."""
    return next((name for name in interfaces() if address in addresses(name)), None)


def addresses(interface: str) -> list[str]:
    """The addresses of an interface, IPv4 first."""
    found = []
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asking, suppress(OSError):
        answer = fcntl.ioctl(asking.fileno(), SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        found.append(socket.inet_ntoa(answer[20:24]))
    with suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            packed, *_, name = line.split()
            if name == interface:
                found.append(str(ipaddress.ip_address(int(packed, 16))))
    return found


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
