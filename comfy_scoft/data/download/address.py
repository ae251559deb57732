"""Protection against server-side request forgery: only public addresses are connected to.

A list of links is untrusted. A link, a redirect or a name server could point this machine at its own network: routers,
other services, cloud metadata. The check is made on the numeric addresses that the connection then uses, so neither
the spelling of a link nor a name that resolves differently the second time (DNS rebinding) can evade it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ...common.errors import UserError
from ...common.text import printable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Allowed = Callable[[Address], bool]
Lookup = Callable[[str, int], Awaitable[list[str]]]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NEVER: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = [
    # beyond `is_global`, which differs between Python's versions: RFC 6890 and IANA's special-purpose registries
    *map(ipaddress.IPv4Network, ("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15")),
    ipaddress.IPv4Network("224.0.0.0/3"),  # multicast and reserved; `is_global` is true for multicast
    ipaddress.IPv4Network("168.63.129.16/32"),  # a public number that reaches the host of an Azure virtual machine
    # Teredo and other tunnels, documentation, 6to4
    *map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")),
]


class LinkError(UserError):
    """Why a link gave no image. retry: another attempt may help; wait: seconds that the host asks to wait."""

    def __init__(self, sentence: str, *, retry: bool = False, wait: float | None = None) -> None:
        super().__init__(sentence)
        self.retry = retry
        self.wait = wait


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet, and so is any IPv4 address embedded in it.

    IPv4-mapped (::ffff:a.b.c.d), NAT64 (64:ff9b::/96) and ISATAP addresses are checked by the IPv4 address inside;
    6to4, Teredo, scoped (fe80::1%eth0), multicast, documentation and reserved addresses are refused.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.ipv4_mapped is not None or address in _NAT64:
            return is_public(low)
        if int(address) >> 32 & 0xFDFFFFFF == 0x00005EFE and not is_public(low):
            return False
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not any(address in net for net in _NEVER if net.version == address.version)


async def system_lookup(host: str, port: int) -> list[str]:
    """All addresses of a name by the system's resolver, hosts file included. Raises OSError."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in infos]


class CheckedResolver(AbstractResolver):
    """Resolves a name once per connection, refuses it if any of its addresses is not allowed, and returns numeric
    addresses only, so that the connection is made to them without another lookup."""

    def __init__(self, allowed: Allowed, lookup: Lookup) -> None:
        self._allowed = allowed
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        results: list[ResolveResult] = []
        for text in dict.fromkeys(await self._lookup(host, port)):
            address = ipaddress.ip_address(text)
            if not self._allowed(address):
                raise _not_public(host, address)
            kind = socket.AF_INET6 if address.version == 6 else socket.AF_INET
            flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            results.append(
                ResolveResult(hostname=host, host=str(address), port=port, family=kind, proto=0, flags=flags)
            )
        if not results:
            raise OSError(f"{host} has no address")
        return results

    async def close(self) -> None:
        """There is nothing to close."""


def check_url(text: str, ports: tuple[int, ...], allowed: Allowed) -> URL:
    """Parse and check an image's URL: http or https, a port in `ports`, no user name or password. Raises LinkError.

    A numeric host is checked here, since aiohttp does not pass it to the resolver; unusual spellings of one, such as
    0x7f.1 or 2130706433, are refused.
    """
    if len(text) > 4_000:
        raise LinkError("The link is longer than 4,000 characters: shorten it.")
    try:
        url = URL(text.strip())
        host, port = url.raw_host, url.port
    except ValueError as error:
        raise LinkError(f"{printable(text)} is not a web address: write it as https://host/image.jpg.") from error
    if url.scheme not in ("http", "https"):
        raise LinkError(f"{printable(text)} is not an http or https address: only those are fetched.")
    if not host or not re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+|[^%]*%.*", host):
        raise LinkError(f"{printable(text)} is not a web address: write it as https://host/image.jpg.")
    if url.user is not None or url.password is not None:
        raise LinkError("The link contains a user name or a password: only public images are fetched.")
    if port not in ports:
        raise LinkError(f"The link uses port {port}: only the ports 80 and 443 are allowed.")
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        # WHATWG URL, "ends in a number": such a host is an address in an unusual spelling, never a name
        if "%" in host or re.fullmatch(r"\d+|0[xX][0-9A-Fa-f]*", host.rstrip(".").split(".")[-1]):
            raise LinkError(
                f"The host {printable(host.rstrip('.'))} is a numeric address in an unusual spelling: write the host's "
                "name instead."
            ) from error
    else:
        if not allowed(address):
            raise _not_public(host, address)
    return url


def _not_public(host: str, address: Address) -> LinkError:
    is_at = "" if host == str(address) else f" is at {address}, which"
    return LinkError(f"The host {printable(host)}{is_at} is not on the public internet: only public hosts are allowed.")
