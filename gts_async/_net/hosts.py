"""Hosts: what a URL may name as its host, and lists of hosts. Which addresses are public is in `_files/address`."""

import ipaddress
import re
from collections.abc import Iterable
from typing import Self

import attrs

from gts_async._errors import InvalidArgument, WrongType

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def address_of(host: str) -> Address | None:
    """Give the address that a host is spelled as, with brackets or without; None for a name."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def is_host(host: str) -> bool:
    """Tell whether `host` is an address in its usual spelling (IPv6 without a zone) or a name in ASCII.

    Names like ``127.1`` or ``0x7f000001`` are none: resolvers read them as addresses, and checks of addresses do not.
    """
    address = address_of(host)
    if address is not None:
        return "%" not in host
    bare = host.lower().removesuffix(".")
    return _NAME.fullmatch(bare) is not None and _NUMBER.fullmatch(bare.rpartition(".")[2]) is None


@attrs.frozen
class Hosts:
    """The hosts that a user has listed: names, addresses, and ``*.name`` for all names below one."""

    patterns: frozenset[str]

    @classmethod
    def parse(cls, listed: str | Iterable[str], argument: str) -> Self:
        """Read a list of hosts, or a text with commas or spaces between them.

        Raises WrongType and InvalidArgument that name `argument`.
        """
        texts = listed.replace(",", " ").split() if isinstance(listed, str) else list(listed)
        if not texts:
            raise InvalidArgument(argument, "is empty", "name a host, or leave it out")
        return cls(frozenset(_pattern(text, argument) for text in texts))

    def __contains__(self, host: str) -> bool:
        address = address_of(host)
        if address is not None:
            return str(address) in self.patterns
        bare = host.lower().removesuffix(".")
        labels = bare.split(".")
        return bare in self.patterns or any(
            f"*.{'.'.join(labels[start:])}" in self.patterns for start in range(1, len(labels))
        )

    def __str__(self) -> str:
        return ", ".join(sorted(self.patterns))


def _pattern(text: object, argument: str) -> str:
    if not isinstance(text, str):
        raise WrongType(argument, f"a host must be a string, not {type(text).__name__}")
    bare = text.strip().lower().removesuffix(".")
    name = bare.removeprefix("*.")
    address = address_of(name)
    if not is_host(name) or (address is not None and name != bare):
        fix = "write names in ASCII, without scheme, port or path, like store.example.com or *.example.com"
        raise InvalidArgument(argument, f"{text[:80]!r} is not a host", fix)
    return bare if address is None else str(address)
