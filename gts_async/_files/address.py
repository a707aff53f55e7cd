"""Which URLs a download may follow, and how a URL is shown. Fetching is in `download`.

A download's URL comes from a server, and so do its redirects: each is checked before it is used, and the address that
its host name leads to is checked again on the open connection, before a byte is sent. So a name that resolves to
something else the second time gains nothing.
"""

import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urljoin

import httpx

from gts_async._errors import UnsafeURL

Trace = Callable[[str, Mapping[str, Any]], Awaitable[None]]
"""httpcore's `trace` extension: told the name of every event on the connection, and what belongs to it."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_SENDABLE = re.compile(r"[!-~]+")
_USER = re.compile(r"(?<=//)[^/]*@")
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")


def shown(url: str) -> str:
    """Give `url` as it may be shown: the query of a signed URL is a key to the file."""
    bare, mark, _ = url.partition("#")[0].partition("?")
    return _USER.sub("<redacted>@", bare) + ("?<redacted>" if mark else "")


def checked(url: str, *, allow_private: bool = False, is_redirect_from_https: bool = False) -> httpx.URL:
    """Give `url` ready to be requested if it may be followed, else raise UnsafeURL.

    https is required, except to this very machine. Addresses that are not public are refused unless `allow_private`;
    link-local ones (a cloud's metadata service) are refused always, and so is a user name in the URL: it would be sent
    as a credential.
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
    if parsed.scheme == "http" and (is_redirect_from_https or not (allow_private and is_this_machine(parsed.host))):
        raise UnsafeURL(f"{name}: not https, so anybody on the way could change the file", path=name)
    address = _address(parsed.host)
    if address is not None:
        check_address(address, name, allow_private=allow_private)
    elif is_this_machine(parsed.host) and not allow_private:
        raise UnsafeURL(f"{name}: leads into this machine", path=name)
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


def check_address(address: Address, name: str, *, allow_private: bool) -> None:
    """Raise UnsafeURL unless the address is public (or private and allowed); `name` is the URL as it may be shown."""
    inner = _embedded(address)
    never = inner.is_link_local or inner.is_multicast or inner.is_unspecified
    is_public = inner.is_global and not inner.is_reserved
    if never or not (is_public or allow_private):
        fix = "" if never else "; if that is right, allow private addresses"
        raise UnsafeURL(f"{name}: leads to {address}, which is not a public address{fix}", path=name)


def guard(url: httpx.URL, *, allow_private: bool, on_event: Callable[[str], None]) -> Trace:
    """Give a trace for the request of `url` that closes a connection to a forbidden address and raises UnsafeURL.

    `on_event` is told the name of every event, for whoever measures patience. A connection to a proxy is not looked
    at: the proxy resolves the name.
    """
    name = shown(str(url))
    is_ours = False

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        nonlocal is_ours
        if event == "connection.connect_tcp.started":
            is_ours = info.get("host") == url.raw_host.decode("ascii")
        elif event == "connection.connect_tcp.complete" and is_ours:
            stream = info["return_value"]
            # Only a mock's stream has no address.
            peer = stream.get_extra_info("server_addr")
            try:
                if peer is not None:
                    check_address(ipaddress.ip_address(peer[0]), name, allow_private=allow_private)
            except UnsafeURL:
                await stream.aclose()
                raise
        on_event(event)

    return trace


def is_this_machine(host: str) -> bool:
    """Tell whether a host of a URL is spelled as this machine: ``localhost`` or a loopback address."""
    address = _address(host)
    if address is not None:
        return _embedded(address).is_loopback
    bare = host.rstrip(".").lower()
    return bare == "localhost" or bare.endswith(".localhost")


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _embedded(address: Address) -> Address:
    """Give the IPv4 address that an IPv6 one stands for (mapped, 6to4, NAT64), else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
