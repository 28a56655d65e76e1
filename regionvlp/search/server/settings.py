"""What a server may do, and for whom."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass

from regionvlp.errors import InputError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
LONGEST_QUERY = 2000  # characters
MOST_RESULTS = 1000
ON_A_PAGE = 10  # results, until more are asked for
MOST_BYTES = 20_000_000  # of a picture to search by
LONGEST_CUT = 900.0  # seconds


@dataclass(frozen=True)
class ServerSettings:
    """How a server is reached, and its limits.

    Attributes:
        host, port: where it listens.
        token: what a client has to know; empty for none, which loopback alone may do without.
        follow_links: serve files whose links lead out of the videos' folder.
        rate: searches, frames and cuts a second that another machine may ask for; 0 for no limit.
        most_waiting: searches that may wait for their turn; the next is told to come back.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str = ""
    follow_links: bool = False
    rate: float = 20.0
    most_waiting: int = 100

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    @property
    def address(self) -> str:
        """The URL of the page, with the token that opens it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/" + (f"?token={self.token}" if self.token else "")


def is_loopback(host: str) -> bool:
    """Whether an address means this machine alone."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_token(host: str, token: str | None) -> str:
    """The token to use: the one given, else a new one where other machines can connect, else none.

    Raises:
        InputError: the token is too easily guessed, or cannot be part of an address.
    """
    if token is None:
        return "" if is_loopback(host) else secrets.token_urlsafe(18)
    if len(token) < 8 or not all(sign.isalnum() or sign in "-_.~" for sign in token) or not token.isascii():
        raise InputError("the token must be 8 or more letters, digits or '-_.~'", "leave --token out for a random one")
    return token
