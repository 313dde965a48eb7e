"""Where requests go, and what must not be seen of it: keys, passwords and tokens, wherever they would show up."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from holdfast.errors import ArgumentError

HIDDEN = "***"

LEAST = 4
"""Characters of the shortest secret that is hidden: shorter ones are parts of other words."""

TELLING = re.compile(r"key|token|secret|sig|pass|pwd|auth|code|cred|cookie|session", re.IGNORECASE)
"""Names of headers and of fields of a query that hold secrets."""


@dataclass(frozen=True, repr=False)
class Address:
    """The address of `POST {base_url}{path}`.

    Arguments:
        url: with its query, and without user and password.
        authorization: header made of the user and the password; `None`: there are none.
        secrets: what of the address must not be seen.
    """

    url: str
    authorization: str | None
    secrets: tuple[str, ...]

    @classmethod
    def of(cls, base_url: str, path: str = "/chat/completions") -> Address:
        """The address below a base, whose query stays at its end.

        Arguments:
            base_url: the base; it may end with the path already.
            path: what follows it.

        Errors:
            ArgumentError: it is no address.
        """
        shown = re.sub(r"//[^/?#]*@", f"//{HIDDEN}@", str(base_url)).split("?")[0]
        if not isinstance(base_url, str) or not base_url.startswith(("http://", "https://")):
            raise ArgumentError("base_url", "an address that starts with http:// or https://", shown)
        try:
            parts = urlsplit(base_url.strip())
            parts.port  # noqa: B018  a port that is no number shows here
            host = parts.netloc.rpartition("@")[2]
            if not parts.hostname or re.search(r"[\s\x00-\x1f]", base_url.strip()):
                raise ValueError("no host")
        except ValueError as error:
            raise ArgumentError("base_url", f"an address ({error})", shown) from None
        whole = parts.path.rstrip("/")
        whole = whole if whole.endswith(path) else whole + path
        secrets = [value for name, value in parse_qsl(parts.query) if TELLING.search(name)]
        authorization = None
        if parts.username is not None:
            user, password = unquote(parts.username), unquote(parts.password or "")
            pair = base64.b64encode(f"{user}:{password}".encode()).decode()
            authorization = f"Basic {pair}"
            # A password alone may come in the place of the user.
            secrets += [password or user, pair]
        url = urlunsplit((parts.scheme, host, whole, parts.query, ""))
        return cls(url, authorization, tuple(secrets))

    @property
    def shown(self) -> str:
        """The address without secrets, as messages and caches may hold it."""
        parts = urlsplit(self.url)
        fields = [
            f"{name}={HIDDEN if TELLING.search(name) else value}"
            for name, value in parse_qsl(parts.query, keep_blank_values=True)
        ]
        return urlunsplit((parts.scheme, parts.netloc, parts.path, "&".join(fields), ""))


class Secrets:
    """Texts that must not be seen, in whatever form they come back.

    Arguments:
        values: the texts.
    """

    def __init__(self, values: Iterable[str]) -> None:
        longest_first = sorted({value for value in values if len(value) >= LEAST}, key=lambda value: -len(value))
        self._pattern = re.compile("|".join(map(_any_form, longest_first)), re.IGNORECASE) if longest_first else None

    def hide(self, text: str) -> str:
        """A text with every secret in it made unreadable."""
        return text if self._pattern is None else self._pattern.sub(HIDDEN, text)

    @contextmanager
    def kept_out_of_logs(self, *names: str) -> Iterator[None]:
        """No record of these loggers holds a secret."""
        if self._pattern is None:
            yield
            return

        def clean(record: logging.LogRecord) -> bool:
            record.msg, record.args = self.hide(record.getMessage()), ()
            return True

        loggers = [logging.getLogger(name) for name in names]
        for logger in loggers:
            logger.addFilter(clean)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(clean)


def _any_form(value: str) -> str:
    """A pattern for a secret as it may be written in a message: each character plain, as in an address, or escaped."""
    return "".join(
        re.escape(letter)
        if letter.isalnum()
        else rf"(?:\\?{re.escape(letter)}|%{ord(letter):02X}|\\u{ord(letter):04x})"
        for letter in value
    )


def secrets_of(headers: Mapping[str, str]) -> list[str]:
    """What of some headers must not be seen: the values of those with telling names, without their scheme."""
    values = [value for name, value in headers.items() if TELLING.search(name)]
    return values + [value.partition(" ")[2] for value in values if " " in value]
