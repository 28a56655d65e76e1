"""Files of the Hugging Face hub: from its cache, else downloaded, without the client's messages and long retries.

In: a repository's name and file names. Out: paths in the hub's cache. A hub that does not answer within seconds counts
as absent; the client itself would go on trying for half a minute.
"""

from __future__ import annotations

import logging
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regionvlp.errors import WeightsError, first_line

REACH_TIMEOUT = 5.0  # seconds
_TRUE = {"1", "on", "yes", "true"}


class Unreachable(WeightsError):
    """The hub cannot be asked: there is no network, or HF_HUB_OFFLINE is set."""


def hub_files(
    repo_id: str, names: Sequence[str], *, revision: str = "main", before: Callable[[], None] = lambda: None
) -> list[Path]:
    """Files of one repository, in the order of ``names``.

    Args:
        repo_id: such as ``owner/model``. names: of the files in it.
        revision: branch, tag or commit.
        before: called once the files are known to be there or the hub to answer.

    Raises:
        Unreachable: a file is not in the cache, and the hub cannot be asked. WeightsError: the hub does not give it.
    """
    from huggingface_hub import hf_hub_download

    no_network, endpoint = hub_is_off(), hub_endpoint()
    settings: dict[str, Any] = {"revision": revision, "cache_dir": os.environ.get("HF_HUB_CACHE") or None}
    with quiet_client():
        try:
            paths = [Path(hf_hub_download(repo_id, name, local_files_only=True, **settings)) for name in names]
        except Exception as missing:  # the client's errors have no common base
            if no_network:
                message = f"HF_HUB_OFFLINE is set, and the hub's cache does not hold {repo_id}"
                raise Unreachable(message, "unset HF_HUB_OFFLINE, or give a local file") from missing
            reach(f"{endpoint}/{repo_id}/resolve/{revision}/{names[0]}")
        else:
            before()
            return paths
        before()
        settings |= {"endpoint": endpoint, "etag_timeout": REACH_TIMEOUT}
        try:
            return [Path(hf_hub_download(repo_id, name, **settings)) for name in names]
        except Exception as error:
            message = f"cannot fetch {repo_id} from {endpoint}: {first_line(error)}"
            raise WeightsError(message, "check the name, and try again: it goes on where it stopped") from None


def offline() -> bool:
    """Whether HF_HUB_OFFLINE is set."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE


def hub_is_off() -> bool:
    """Whether the client was told that there is no network, by now or when it was imported."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE) or offline()


def hub_endpoint() -> str:
    """The hub's address: HF_ENDPOINT as it is at the call, not when the client was imported."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def reach(url: str) -> None:
    """Asks whether anything answers at ``url`` within seconds; any answer at all will do.

    Raises:
        Unreachable: nothing does.
    """
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=REACH_TIMEOUT):
            pass
    except urllib.error.HTTPError:
        pass
    except (OSError, ValueError) as error:
        host = "/".join(url.split("/")[:3])
        raise Unreachable(
            f"{host} does not answer ({getattr(error, 'reason', error)})",
            "check the network (HF_ENDPOINT names another hub), or give a local file",
        ) from None


@contextmanager
def quiet_client() -> Iterator[None]:
    """Keeps the hub's client from talking; its progress bar stays where there is a terminal."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    client = logging.getLogger("huggingface_hub")
    level, bars = client.level, not are_progress_bars_disabled()
    client.setLevel(logging.CRITICAL)
    if bars and not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    finally:
        client.setLevel(level)
        if bars:
            enable_progress_bars()
