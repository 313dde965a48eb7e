"""How one request travels over HTTP: connections that are kept, proxies, certificates, and a bound on answers."""

from __future__ import annotations

import ipaddress
import json
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from holdfast.errors import ArgumentError
from holdfast.llm.address import Address, Secrets
from holdfast.llm.errors import EndpointError

if TYPE_CHECKING:
    import aiohttp

MOST_BYTES = 1 << 26
"""Bytes of the longest body that is read."""


@dataclass(frozen=True)
class Reply:
    """What came back.

    Arguments:
        status: of HTTP.
        text: the body.
        headers: with names in small letters.
    """

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Transport(Protocol):
    """Carries requests, several at a time, within one event loop."""

    async def send(self, body: Mapping[str, Any]) -> Reply:
        """Send one request, and wait for the whole of its answer.

        Errors:
            EndpointError: there was none.
        """

    async def close(self) -> None:
        """Leave nothing open."""


class HttpTransport:
    """POST requests to one address, over connections that are kept.

    Arguments:
        address: where they go.
        proxy: what they go through; `None`: nothing.
        headers: of every request.
        secrets: what errors must not show.
        connections: most of them that are open together.
    """

    def __init__(
        self, address: Address, proxy: Address | None, headers: Mapping[str, str], secrets: Secrets, connections: int
    ) -> None:
        self._address, self._secrets, self._connections = address, secrets, connections
        self._headers = {**headers, "Content-Type": "application/json"}
        self._encrypted = address.url.startswith("https://")
        self._proxy: dict[str, Any] = {}
        if proxy is not None:
            self._proxy = {"proxy": proxy.url}
            if proxy.authorization and self._encrypted:  # it opens the tunnel
                self._proxy["proxy_headers"] = {"Proxy-Authorization": proxy.authorization}
            elif proxy.authorization:
                self._headers["Proxy-Authorization"] = proxy.authorization
        self._session: aiohttp.ClientSession | None = None

    async def send(self, body: Mapping[str, Any]) -> Reply:
        import aiohttp
        from yarl import URL

        content = json.dumps(body, allow_nan=False).encode()
        url = URL(self._address.url, encoded=True)
        shown = self._address.shown
        try:
            async with self._opened().post(url, data=content, allow_redirects=False, **self._proxy) as response:
                parts, size = [], 0
                async for part in response.content.iter_any():
                    size += len(part)
                    if size > MOST_BYTES:
                        raise EndpointError(f"{shown} answered with more than {MOST_BYTES >> 20} MiB")
                    parts.append(part)
                text = b"".join(parts).decode(response.charset or "utf-8", "replace")
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Reply(response.status, text, headers)
        except (aiohttp.ClientError, OSError, ValueError, LookupError, RuntimeError) as error:
            words = self._secrets.hide(f"{type(error).__name__} {error}".rstrip())
            for_good = isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.InvalidURL)
            raise EndpointError(f"no answer from {shown}: {words}", not for_good) from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        """The connections, which belong to the event loop that they are first used in."""
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._connections, ssl=_certificates() if self._encrypted else True
                ),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            )
        return self._session


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust: those that this machine trusts, and the usual authorities. It takes a while to load."""
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def proxy_of(address: Address) -> Address | None:
    """The proxy that the environment names for an address; this machine itself is never asked through one.

    Errors:
        ArgumentError: it cannot be used.
    """
    parts = urlsplit(address.url)
    host = parts.hostname or ""
    if _is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy:
        return None
    try:
        return Address.of(proxy if "://" in proxy else f"http://{proxy}", path="")
    except ArgumentError as error:
        expected = "proxies in the environment that speak HTTP"
        raise ArgumentError("base_url", expected, error.got) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
