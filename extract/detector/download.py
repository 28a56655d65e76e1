"""One file from a URL: resumed where it broke off, whole and checked when it is there. Standard library only.

In: a URL. Out: a file under its own name in a folder. What has come so far lies beside it as ``NAME.part``, with the
server's mark of the file's state (``NAME.mark``): a file that changed on the server is begun anew, never spliced.
"""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from regionvlp.errors import InputError, WeightsError
from regionvlp.store.files import publish, sha256_of

ATTEMPTS = 4
PIECE = 1 << 18
TIMEOUT = 20.0  # seconds without a single byte

# Called with the bytes that are here and the bytes of the whole file (None where the server does not say).
OnBytes = Callable[[int, int | None], None]


class BrokenOff(Exception):
    """The connection ended before the file did; going on may help."""


def download(
    url: str,
    folder: Path,
    *,
    sha256: str | None = None,
    on_bytes: OnBytes = lambda done, total: None,
    pause: float = 1.0,
) -> Path:
    """Fetches ``url`` into ``folder``; a transfer that breaks off is resumed, now or by the next call.

    Args:
        sha256: what the file's SHA-256 must be, where that is known.
        on_bytes: told about the progress. pause: seconds before the first new attempt; doubled each time.

    Returns:
        The file. It is the caller's to remove.

    Raises:
        InputError: not a URL of a file.
        WeightsError: the server is not there, refuses, or gives something else; after a wrong checksum nothing is left.
    """
    parts = urlsplit(url)
    name = Path(unquote(parts.path)).name
    if parts.scheme not in ("http", "https") or not parts.netloc or not name:
        raise InputError(f"'{url}' is not the URL of a file", "give http://... or https://..., or a local file")
    folder.mkdir(parents=True, exist_ok=True)
    # Two addresses may end alike.
    part = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name}.part"
    for attempt in range(ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            _transfer(url, part, on_bytes)
            break
        except BrokenOff as error:
            now = part.stat().st_size if part.exists() else 0
            if attempt == ATTEMPTS - 1 or now == before:
                raise WeightsError(
                    f"the download of {url} broke off after {now:,} bytes: {error}",
                    "run the same command again: it goes on from there",
                ) from None
            time.sleep(pause * 2**attempt)
    mark = _mark_path(part)
    mark.unlink(missing_ok=True)
    if sha256 is not None and (actual := sha256_of(part)) != sha256:
        part.unlink()
        raise WeightsError(
            f"{url} gave a file with the checksum {actual}, expected {sha256}", "the file there is damaged or another"
        )
    whole = part.with_suffix("")
    publish(part, whole)
    return whole


def _transfer(url: str, part: Path, on_bytes: OnBytes) -> None:
    """Brings ``part`` to its full length, or raises."""
    mark = _mark_path(part)
    have = part.stat().st_size if part.exists() and mark.exists() else 0
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", mark.read_text(encoding="utf-8"))
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            _receive(response, url, part, mark, have, on_bytes)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            part.unlink()
            raise BrokenOff("what had come was longer than the file") from None
        raise WeightsError(
            f"cannot download {url}: HTTP {error.code} {error.reason}", "check the address, or give a local file"
        ) from None
    except urllib.error.URLError as error:
        raise WeightsError(
            f"cannot reach {url}: {error.reason}", "check the address and the network, or give a local file"
        ) from None
    except (http.client.HTTPException, OSError) as error:
        raise BrokenOff(str(error) or type(error).__name__) from None


def _receive(
    response: http.client.HTTPResponse, url: str, part: Path, mark: Path, have: int, on_bytes: OnBytes
) -> None:
    if response.headers.get_content_type() == "text/html":
        raise WeightsError(f"{url} gives a web page, not a file", "open it in a browser and give the file it leads to")
    have = have if response.status == 206 else 0
    tag, date = response.headers.get("ETag"), response.headers.get("Last-Modified")
    # Only a strong tag promises the same bytes.
    state = tag if tag and not tag.startswith("W/") else date
    if state:
        mark.write_text(state, encoding="utf-8")
    else:
        mark.unlink(missing_ok=True)
    length = response.headers.get("Content-Length")
    total = have + int(length) if length and length.isdigit() else None
    with part.open("ab" if have else "wb") as file:
        on_bytes(have, total)
        while piece := response.read(PIECE):
            file.write(piece)
            have += len(piece)
            on_bytes(have, total)
    if total is not None and have < total:
        raise BrokenOff(f"{total - have:,} bytes are missing")


def _mark_path(part: Path) -> Path:
    return part.with_suffix(".mark")
