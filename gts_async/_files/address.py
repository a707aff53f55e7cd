"""Which URLs a download may follow, and how a URL is shown. Fetching is in `download`.

A download's URL comes from a server, and so do its redirects: each is checked before it is used, and the address that
its host name has led to is checked on the open connection, before a byte is sent. So a name that resolves to something
else the second time gains nothing.
"""

import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self
from urllib.parse import urljoin

import attrs
import httpx

from gts_async._errors import UnsafeURL
from gts_async._net.config import BaseURL
from gts_async._net.hosts import Address, Hosts, address_of, is_host

Trace = Callable[[str, Mapping[str, Any]], Awaitable[None]]
"""httpcore's `trace` extension: told the name of every event on the connection, and what belongs to it."""

_SENDABLE = re.compile(r"[!-~]+")
_USER = re.compile(r"(?<=//)[^/]*@")
_TRANSLATED = tuple(
    ipaddress.IPv6Network(net) for net in ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
)
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)
"""Where clouds tell their machines' secrets, besides 169.254.0.0/16: Aliyun, Azure, Oracle, Amazon, Google."""


@attrs.frozen
class Fence:
    """Where downloads may lead: to public addresses, and from `hosts`, if the user has listed any, to nobody else.

    A listed host may be private, and with `allow_private` any may. This very machine is let in by `allow_loopback`
    alone, and a cloud's metadata service by nothing.
    """

    hosts: Hosts | None = None
    allow_private: bool = False
    allow_loopback: bool = False

    @classmethod
    def around(cls, api: BaseURL, hosts: Hosts | None = None) -> Self:
        """Give the fence for what this API hands out: only one that is itself private has its store in there, too."""
        address = address_of(api.host)
        is_private = address is not None and not (address.is_global or _is_forbidden(address))
        return cls(hosts, allow_private=is_private or api.is_loopback, allow_loopback=api.is_loopback)

    def check(self, address: Address, host: str, name: str) -> None:
        """Raise UnsafeURL unless `host` may have this address; `name` is the URL as it may be shown."""
        inner = _embedded(address)
        if inner.is_global and not inner.is_reserved and not _is_forbidden(inner):
            return
        if _is_forbidden(inner):
            fix = ""
        elif inner.is_loopback:
            if self.allow_loopback:
                return
            fix = "; only an API on this machine may lead there"
        else:
            if self.allow_private or (self.hosts is not None and host in self.hosts):
                return
            fix = "; if that is right, list the host in store_hosts"
        raise UnsafeURL(f"{name}: leads to {address}, which is not a public address{fix}", path=name)


PUBLIC = Fence()
HERE = Fence(allow_private=True, allow_loopback=True)
"""For a store on this machine."""


def shown(url: str) -> str:
    """Give `url` as it may be shown: the query of a signed URL is a key to the file."""
    bare, mark, _ = url.partition("#")[0].partition("?")
    return _USER.sub("<redacted>@", bare) + ("?<redacted>" if mark else "")


def checked(url: str, fence: Fence = PUBLIC, *, is_redirect_from_https: bool = False) -> httpx.URL:
    """Give `url` ready to be requested if `fence` lets it through, else raise UnsafeURL.

    https is required, except to this very machine, where that is let in. A user name in the URL is refused: it would
    be sent as a credential.
    """
    try:
        parsed = httpx.URL(url)
        is_absolute = bool(parsed.host) and (parsed.port or 443) < 65536 and _SENDABLE.fullmatch(url) is not None
    except (httpx.InvalidURL, TypeError, ValueError):
        parsed, is_absolute = httpx.URL(), False
    if not is_absolute:
        # Neither shown nor chained: what is no URL may still be a key.
        raise UnsafeURL("the download's URL is not an absolute http(s) URL in plain ASCII") from None
    name = shown(url)
    if parsed.scheme not in ("http", "https"):
        raise UnsafeURL(f"{name}: not an http(s) URL", path=name)
    if parsed.userinfo:
        raise UnsafeURL(f"{name}: has a user name or password in it, which would be sent to the host", path=name)
    host = _host(parsed)
    if not is_host(host):
        raise UnsafeURL(f"{name}: its host is neither a name nor an address in its usual spelling", path=name)
    if fence.hosts is not None and host not in fence.hosts:
        raise UnsafeURL(f"{name}: {host} is not in store_hosts ({fence.hosts})", path=name)
    if parsed.scheme == "http" and (is_redirect_from_https or not (fence.allow_loopback and is_this_machine(host))):
        raise UnsafeURL(f"{name}: not https, so anybody on the way could change the file", path=name)
    address = address_of(host)
    if address is not None:
        fence.check(address, host, name)
    elif is_this_machine(host) and not fence.allow_loopback:
        raise UnsafeURL(f"{name}: leads into this machine; only an API on this machine may lead there", path=name)
    return parsed


def target(url: str) -> bytes:
    """Give path and query exactly as they stand in `url`, which `checked` let pass: a signature covers every byte."""
    rest = re.sub(r"^[^/]*//[^/?]*", "", url.partition("#")[0])
    return (rest if rest.startswith("/") else f"/{rest}").encode("ascii")


def joined(url: str, location: str) -> str:
    """Give where a redirect leads: `location` as it stands if it is absolute."""
    try:
        return urljoin(url, location)
    except ValueError:
        raise UnsafeURL(f"{shown(url)}: redirects to something that is no URL", path=shown(url)) from None


def guard(url: httpx.URL, fence: Fence, *, on_event: Callable[[str], None]) -> Trace:
    """Give a trace for the request of `url` that closes a connection to a forbidden address and raises UnsafeURL.

    `on_event` is told the name of every event, for whoever measures patience. A connection to a proxy is not looked
    at: the proxy resolves the name.
    """
    host = _host(url)
    is_ours = False

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        nonlocal is_ours
        if event == "connection.connect_tcp.started":
            is_ours = info.get("host") == host
        elif event == "connection.connect_tcp.complete" and is_ours:
            stream = info["return_value"]
            # Only a mock's stream has no address.
            peer = stream.get_extra_info("server_addr")
            try:
                if peer is not None:
                    _check_peer(ipaddress.ip_address(peer[0]), url, fence)
            except UnsafeURL:
                await stream.aclose()
                raise
        on_event(event)

    return trace


def _check_peer(address: Address, url: httpx.URL, fence: Fence) -> None:
    name = shown(str(url))
    fence.check(address, _host(url), name)
    if url.scheme == "http" and not _embedded(address).is_loopback:
        raise UnsafeURL(f"{name}: leads to {address}, which is another machine, without https", path=name)


def _host(url: httpx.URL) -> str:
    """Give the host as it is asked for; httpx's own `host` undoes the ASCII form of a name."""
    return url.raw_host.decode("ascii")


def is_this_machine(host: str) -> bool:
    """Tell whether a host of a URL is spelled as this machine: ``localhost`` or a loopback address."""
    address = address_of(host)
    if address is not None:
        return _embedded(address).is_loopback
    bare = host.rstrip(".").lower()
    return bare == "localhost" or bare.endswith(".localhost")


def _is_forbidden(address: Address) -> bool:
    is_nowhere = address.is_link_local or address.is_multicast or address.is_unspecified
    return is_nowhere or address in _METADATA


def _embedded(address: Address) -> Address:
    """Give the IPv4 address that an IPv6 one stands for (mapped, compatible, 6to4, translated), else itself."""
    if isinstance(address, ipaddress.IPv4Address) or address.is_loopback or address.is_unspecified:
        return address
    if any(address in network for network in _TRANSLATED):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
