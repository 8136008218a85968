"""Which addresses a manifest may reach: public ones, and the networks that the administrator allows."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from kaos.errors import InvalidInputError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Block = ipaddress.IPv4Network | ipaddress.IPv6Network

_REFUSED: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "carrier-grade NAT"),
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "a cloud's own service"),  # public, but answered by the host of every Azure machine
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "reserved"),
    ("192.88.99.0/24", "reserved"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "reserved"),
    ("198.51.100.0/24", "reserved"),
    ("203.0.113.0/24", "reserved"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "private"),
    ("ff00::/8", "multicast"),
)
_PUBLIC6 = ipaddress.IPv6Network("2000::/3")  # all that was ever given out
_RESERVED6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))
_NETWORKS: tuple[tuple[Block, str], ...] = tuple((ipaddress.ip_network(cidr), why) for cidr, why in _REFUSED)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


class AddressPolicy:
    """Tell which addresses may be connected to.

    :param allowed: networks (CIDR) that are allowed although they are not public
    :raises InvalidInputError: one of them is no network
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = tuple(_network(cidr) for cidr in allowed)

    def refusal(self, address: str) -> str | None:
        """Return why an address is refused, in words, or None if it may be connected to."""
        ip: Address = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address):
            if any(ip in network for network in self._allowed):
                return None
            embedded = _embedded(ip)
            if embedded is None:
                return _why6(ip)
            ip = embedded
        if any(ip in network for network in self._allowed):
            return None
        return next((why for network, why in _NETWORKS if ip in network), None)


def _why6(ip: ipaddress.IPv6Address) -> str | None:
    for network, why in _NETWORKS:
        if ip in network:
            return why
    return "reserved" if ip not in _PUBLIC6 or any(ip in network for network in _RESERVED6) else None


def _embedded(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that is really reached through an IPv6 one."""
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip.sixtofour is not None:
        return ip.sixtofour
    if ip.teredo is not None:
        return ip.teredo[1]
    if ip in _NAT64 or (ip in _COMPATIBLE and int(ip) > 1):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return None


def _network(cidr: str) -> Block:
    try:
        return ipaddress.ip_network(cidr.strip())
    except ValueError as error:
        raise InvalidInputError(
            f"{cidr!r} is no network: {error}.",
            "Write [kaos] manifest_allowed_networks as CIDRs, such as 10.1.0.0/16, fd00:1::/32.",
        ) from None
