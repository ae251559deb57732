"""Which addresses of the net may be asked. Only public ones; and those that were checked are those connected to.

A list of links is somebody else's text. Without this, a link, a redirect or a name server could have this machine ask
its own network: routers, other services, a cloud's metadata (server-side request forgery). What stands here does not
read the text of a link for clues. It checks the numeric addresses that the connection is then made to, so that neither
spelling nor a name that resolves differently the second time (DNS rebinding) matters.
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
from ..dataset.rows import shown

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Allowed = Callable[[Address], bool]
Lookup = Callable[[str, int], Awaitable[list[str]]]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NEVER: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = [
    # beyond `is_global`, which differs between Python's versions: RFC 6890 and IANA's special-purpose registries
    *map(ipaddress.IPv4Network, ("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15")),
    ipaddress.IPv4Network("224.0.0.0/3"),  # multicast and reserved; `is_global` says yes to multicast
    ipaddress.IPv4Network("168.63.129.16/32"),  # a public number that means the host of an Azure machine
    # Teredo and other tunnels, documentation, 6to4
    *map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")),
]


class LinkError(UserError):
    """Why a link gave no image, in one sentence. again: another try may help; wait: seconds the host asks for."""

    def __init__(self, sentence: str, again: bool = False, wait: float | None = None) -> None:
        super().__init__(sentence)
        self.again = again
        self.wait = wait


def is_public(address: Address) -> bool:
    """Whether an address belongs to the open internet; an IPv4 address inside an IPv6 one must do so as well.

    IPv4-mapped (::ffff:a.b.c.d) and NAT64 (64:ff9b::/96) are judged by what they hold, and so are ISATAP interface
    identifiers; 6to4, Teredo, scoped (fe80::1%eth0), multicast, documentation and reserved addresses are refused.
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
    """All addresses of a name, as the system resolves it (the hosts file too). Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


class CheckedResolver(AbstractResolver):
    """Resolves a name once per connection, refuses it when any of its addresses is not allowed, and hands out only
    numeric addresses: the connection is made to them and nothing is looked up again."""

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
        """Nothing is held open."""


def check_url(text: str, ports: tuple[int, ...], allowed: Allowed) -> URL:
    """The address of an image, ready to be asked. Raises LinkError with one sentence.

    http and https only, on `ports` only, without a user name. A host that is an address in itself is checked here
    (aiohttp asks no resolver about those); it must be written in the usual form, 0x7f.1 or 2130706433 are refused.
    """
    if len(text) > 4_000:
        raise LinkError("The link is longer than 4,000 characters: shorten it.")
    try:
        url = URL(text.strip())
        host, port = url.raw_host, url.port
    except ValueError as error:
        raise LinkError(f"{shown(text)} is no web address: write it as https://host/image.jpg.") from error
    if url.scheme not in ("http", "https"):
        raise LinkError(f"{shown(text)} is not an http or https address: only those are fetched.")
    if not host or not re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+|[^%]*%.*", host):
        raise LinkError(f"{shown(text)} is no web address: write it as https://host/image.jpg.")
    if url.user is not None or url.password is not None:
        raise LinkError("The link holds a user name or a password: only what everybody may see is fetched.")
    if port not in ports:
        raise LinkError(f"The link asks port {port}: only the usual ports of the web, 80 and 443, are asked.")
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        # WHATWG URL, "ends in a number": such a host is an address in an unusual spelling, never a name
        if "%" in host or re.fullmatch(r"\d+|0[xX][0-9A-Fa-f]*", host.rstrip(".").split(".")[-1]):
            raise LinkError(
                f"The host {shown(host.rstrip('.'))} is an address in an odd spelling: write the host's name instead."
            ) from error
    else:
        if not allowed(address):
            raise _not_public(host, address)
    return url


def _not_public(host: str, address: Address) -> LinkError:
    is_at = "" if host == str(address) else f" is at {address}, which"
    return LinkError(f"The host {shown(host)}{is_at} is not on the open internet: only public addresses are asked.")
