"""What may be fetched: rules on URLs, and on the addresses that their hosts turn out to have.

A URL list is written by strangers. These rules keep it, and every server that it names, from
making this machine read its own files, its own services or its private network.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from pipelines.download.reasons import Failure, Reason

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_DEFAULT_PORTS = {"http": 80, "https": 443}
_FORBIDDEN_CHARACTERS = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_URL_SAFE = "!#$%&'()*+,/:;=?@[]~"
_EMBEDDING_NETWORKS = [
    ipaddress.IPv6Network(network)
    for network in (
        "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32",
    )
]  # fmt: skip
"""IPv6 ranges that stand for IPv4 addresses: compatible, mapped, translated, NAT64, 6to4, Teredo."""
_REFUSED_NETWORKS = {
    ipaddress.ip_network(network): why
    for network, why in {
        "100.64.0.0/10": "shared by a provider's customers (RFC 6598); Alibaba Cloud's metadata is at 100.100.100.200",
        "168.63.129.16/32": "Azure's platform address: WireServer, DHCP, DNS (learn.microsoft.com, what-is-ip-address-168-63-129-16)",
        "192.0.0.0/24": "for IETF protocols (RFC 6890); Oracle Cloud's metadata was at 192.0.0.192",
        "192.88.99.0/24": "the former anycast address of 6to4 relays (RFC 7526)",
        "2001::/23": "for IETF protocols (RFC 2928): Teredo, benchmarking, ORCHID",
        "3fff::/20": "for documentation (RFC 9637)",
        "fec0::/10": "site-local (RFC 3879)",
    }.items()
}
"""What Python's tables of 3.11 call public, or call so in some of its releases, with the source of each."""
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that IANA has given out of IPv6 for the internet (its registry of the IPv6 address space); `5f00::/16` and the like are not."""


@dataclass(frozen=True)
class Policy:
    """Which ports may be connected to, and whether those of this machine may."""

    ports: frozenset[int]
    allow_loopback: bool = False
    loopback_ports: frozenset[int] = frozenset()
    """Ports that are open on loopback only: that of the world's web server."""


@dataclass(frozen=True)
class Target:
    """A URL taken apart, in ASCII: what goes into a connection and a request line."""

    scheme: str
    host: str
    port: int
    path: str
    """Path and query, percent-encoded."""

    @property
    def origin(self) -> str:
        """Scheme, host and port: what a robots.txt is about."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def target(url: str, policy: Policy) -> Target:
    """The URL, taken apart.

    Raises:
        Failure: the URL is not one that may be fetched, whatever its host resolves to.
    """
    if _FORBIDDEN_CHARACTERS.search(url):
        raise Failure(Reason.URL_INVALID, "holds a space, a backslash or a control character")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Failure(Reason.URL_INVALID, str(error)) from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise Failure(Reason.URL_SCHEME, parts.scheme or "none")
    if "@" in parts.netloc:
        raise Failure(Reason.USERINFO_REFUSED)
    port = _DEFAULT_PORTS[parts.scheme] if port is None else port
    if port not in policy.ports and port not in policy.loopback_ports:
        raise Failure(Reason.PORT_REFUSED, str(port))
    path = quote(parts.path or "/", safe=_URL_SAFE) + (
        f"?{quote(parts.query, safe=_URL_SAFE)}" if parts.query else ""
    )
    return Target(parts.scheme, _host(parts.hostname), port, path)


def _host(host: str | None) -> str:
    if not host:
        raise Failure(Reason.URL_INVALID, "names no host")
    if ":" in host:
        return host
    try:
        name = host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise Failure(Reason.URL_INVALID, "the host is not a valid name") from None
    if not _HOST_NAME.fullmatch(name):
        raise Failure(Reason.URL_INVALID, "the host is not a valid name")
    # A resolver reads 2130706433, 0x7f.1 and 0177.0.0.1 as addresses; nobody writes those in good faith.
    if _NUMERIC_LABEL.fullmatch(name.rstrip(".").rpartition(".")[2]) and literal(name) is None:
        raise Failure(Reason.ADDRESS_REFUSED, f"{name} is not a plain IPv4 address")
    return name


def literal(host: str) -> Address | None:
    """The address that the host is, where it is one and not a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def check_address(address: Address, port: int, policy: Policy) -> None:
    """Whether a connection to the address and port may be made.

    Raises:
        Failure: it may not.
    """
    if address.version == 6:
        if address.scope_id is not None:
            raise Failure(Reason.ADDRESS_REFUSED, f"{address} has a scope")
        embeds = any(address in network for network in _EMBEDDING_NETWORKS)
        if embeds and address != ipaddress.IPv6Address("::1"):
            raise Failure(Reason.ADDRESS_REFUSED, f"{address} stands for an IPv4 address")
    if address.is_loopback:
        if not policy.allow_loopback:
            raise Failure(
                Reason.ADDRESS_REFUSED, f"{address} is this machine; the manifest says no allow_loopback"
            )
        if port not in policy.ports | policy.loopback_ports:
            raise Failure(Reason.PORT_REFUSED, str(port))
        return
    if (why := _refused_as(address)) is not None:
        raise Failure(Reason.ADDRESS_REFUSED, f"{address} is not a public address: {why}")
    if address.is_multicast or address.is_reserved or not address.is_global:
        raise Failure(Reason.ADDRESS_REFUSED, f"{address} is not a public address")
    if port not in policy.ports:
        raise Failure(Reason.PORT_REFUSED, str(port))


def _refused_as(address: Address) -> str | None:
    """What the address is, where it is not one of the public internet whatever Python's tables say."""
    for network, why in _REFUSED_NETWORKS.items():
        if address in network:
            return why
    if address.version == 6 and address not in _GLOBAL_UNICAST:
        return "outside 2000::/3"
    return None
