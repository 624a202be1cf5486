"""Which receivers are allowed (OWASP, Server-Side Request Forgery Prevention): by the URL, then by each address."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from socket import SOCK_STREAM, gaierror, getaddrinfo
from urllib.parse import urlsplit

PORTS = (443, 8443)
LONGEST_URL = 2000
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\.?")
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # no mapped, compatible, NAT64, local or multicast form lies in it
_NOT_GLOBAL = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments; a cloud's metadata service among them
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv4Network("168.63.129.16/32"),  # a cloud's host, though the address is a public one
    IPv6Network("2001::/23"),  # Teredo and other protocol assignments
    IPv6Network("2002::/16"),  # 6to4: holds an IPv4 address
    IPv6Network("3fff::/20"),  # documentation
)

Resolver = Callable[[str, int], list[str]]


class Refused(ValueError):
    """A receiver that must not be contacted, and why."""


@dataclass(frozen=True)
class Target:
    """A URL taken apart. `resource` is its path and query."""

    secure: bool
    host: str
    port: int
    resource: str


def parse(url: str, loopback: bool) -> Target:
    """The receiver of a URL. `loopback` also lets plain http and any port pass, for addresses of this machine only.

    Raises Refused.
    """
    if len(url) > LONGEST_URL or not re.fullmatch(r"[\x21-\x7e]+", url) or "\\" in url:
        raise Refused(f"use at most {LONGEST_URL} printable ASCII characters (hosts in punycode)")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused(str(error)) from error
    if parts.scheme != "https" and not (loopback and parts.scheme == "http"):
        raise Refused("use an https:// URL")
    if "@" in parts.netloc or parts.fragment:
        raise Refused("a user, a password or a fragment is not allowed")
    secure = parts.scheme == "https"
    port = port if port is not None else (443 if secure else 80)
    if port not in PORTS and not loopback:
        raise Refused(f"use port {' or '.join(map(str, PORTS))}")
    host = parts.hostname or ""
    try:
        literal = ip_address(host)
    except ValueError:
        if not _HOST.fullmatch(host):
            raise Refused("its host is no name or address") from None
    else:
        check_address(str(literal), secure, port, loopback)
    return Target(secure, host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system knows them."""
    try:
        found = getaddrinfo(host, port, type=SOCK_STREAM)
    except (gaierror, UnicodeError) as error:
        raise Refused("its name cannot be resolved") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def addresses(target: Target, loopback: bool, resolver: Resolver = resolve) -> list[str]:
    """Where to connect: the name is resolved once, and one bad address spoils them all. Raises Refused."""
    found = resolver(target.host, target.port)
    if not found:
        raise Refused("its name has no address")
    for address in found:
        check_address(address, target.secure, target.port, loopback)
    return found


def check_address(text: str, secure: bool, port: int, loopback: bool) -> None:
    """Raise Refused unless the address is a public one, or this machine's where that is allowed."""
    address = ip_address(text.partition("%")[0])
    if loopback and address.is_loopback:
        return
    if not is_public(address):
        raise Refused("its address is not a public one")  # which one is not told: that would answer for our network
    if not secure or port not in PORTS:
        raise Refused(f"beyond this machine use https and port {' or '.join(map(str, PORTS))}")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address is one of the public internet, and not another one in disguise."""
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    inside = any(address in network for network in _NOT_GLOBAL if network.version == address.version)
    return address.is_global and not (address.is_multicast or address.is_reserved or inside)
