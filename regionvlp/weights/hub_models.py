"""Models that somebody shares on the Hugging Face hub, named ``hub:owner/name@revision``.

In: such a name. Out: a folder of the hub's cache with one commit's files of the names asked for, and the upload of a
folder. Whatever else a repository holds is neither downloaded nor opened, and nothing of it is ever run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from regionvlp.errors import InputError, WeightsError, first_line
from regionvlp.weights.hub import REACH_TIMEOUT, Unreachable, hub_endpoint, hub_is_off, quiet_client, reach

PREFIX = "hub:"
SHOWN = 3  # files named in a complaint
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
_PART = r"\w(?:[\w.-]*\w)?"
# Never "..", which would leave the folder of the cache.
_NAME = re.compile(rf"(?!.*(\.\.|--))(?P<repo>{_PART}/{_PART})(@(?P<revision>{_PART}(?:/{_PART})*))?", re.ASCII)


@dataclass(frozen=True)
class HubName:
    """A repository of the hub, and the branch, tag or commit of it (the hub's own ``main`` where none is named)."""

    repo_id: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo_id}" + (f"@{self.revision}" if self.revision != "main" else "")


def hub_name(text: str | PurePath) -> HubName | None:
    """Reads ``hub:owner/name`` or ``hub:owner/name@revision``; None for anything that does not begin with ``hub:``.

    Raises:
        InputError: it begins so, and is no name of a repository.
    """
    name = text.as_posix() if isinstance(text, PurePath) else text
    if not name.startswith(PREFIX):
        return None
    match = _NAME.fullmatch(name.removeprefix(PREFIX))
    if match is None:
        raise InputError(f"'{name}' names no repository of the hub", "write hub:owner/name, or hub:owner/name@revision")
    return HubName(match["repo"], match["revision"] or "main")


def fetch_folder(name: HubName, files: Sequence[str], *, what: str) -> Path:
    """The folder of the hub's cache that holds ``files`` of one commit: the hub's newest, where it can be asked.

    Where it cannot, because there is no network or HF_HUB_OFFLINE is set, what was fetched earlier is taken.

    Args:
        name: of the repository. files: names in it, all of which must be there.
        what: what the files make up, for the complaint where they are not.

    Raises:
        Unreachable: the hub cannot be asked, and the cache does not hold them. InputError: there is no such repository
            or revision, or it holds something else. WeightsError: the hub does not give a file.
    """
    if not hub_is_off():
        endpoint = hub_endpoint()
        try:
            reach(f"{endpoint}/api/models/{name.repo_id}/revision/{name.revision}")
        except Unreachable:
            if found := _cached(name, files):
                return found
            raise
        return _newest(name, files, endpoint, what)
    if found := _cached(name, files):
        return found
    wanted = ", ".join(files)
    raise Unreachable(
        f"HF_HUB_OFFLINE is set, and the hub's cache does not hold {name} whole",
        f"unset HF_HUB_OFFLINE, or put {wanted} into a folder and give that",
    )


def _cached(name: HubName, files: Sequence[str]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    place = os.environ.get("HF_HUB_CACHE") or None
    paths = [try_to_load_from_cache(name.repo_id, file, cache_dir=place, revision=name.revision) for file in files]
    found = [Path(path) for path in paths if isinstance(path, str) and Path(path).is_file()]
    return found[0].parent if len(found) == len(files) else None


def _newest(name: HubName, files: Sequence[str], endpoint: str, what: str) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    with quiet_client():
        try:
            info = HfApi(endpoint=endpoint).model_info(name.repo_id, revision=name.revision, timeout=REACH_TIMEOUT)
        except Exception as error:  # the client's errors have no common base
            raise _refusal(name, endpoint, error) from None
        _check_holds(name, files, {sibling.rfilename for sibling in info.siblings or ()}, what)
        settings: dict[str, Any] = {
            "cache_dir": os.environ.get("HF_HUB_CACHE") or None, "endpoint": endpoint, "etag_timeout": REACH_TIMEOUT,
        }  # fmt: skip
        try:
            # By commit, so that files of two commits never mix ...
            paths = [Path(hf_hub_download(name.repo_id, file, revision=info.sha, **settings)) for file in files]
            # ... and one by name, by which the client notes in its cache what the name means now.
            hf_hub_download(name.repo_id, min(files), revision=name.revision, **settings)
        except Exception as error:
            message = f"cannot fetch {name} from {endpoint}: {first_line(error)}"
            raise WeightsError(message, "try again: it goes on where it stopped") from None
    return paths[0].parent


def _check_holds(name: HubName, files: Sequence[str], there: Collection[str], what: str) -> None:
    """Says what a repository lacks, and what it holds instead."""
    missing = [file for file in files if file not in there]
    if not missing:
        return
    others = sorted(set(there) - {".gitattributes", "README.md"})
    shown = ", ".join(others[:SHOWN]) + (", ..." if len(others) > SHOWN else "") or "nothing"
    pickles = " (pickles are not opened)" if any(PurePath(file).suffix in _PICKLES for file in others) else ""
    raise InputError(
        f"{name} holds no {what}: {', '.join(missing)} missing; it holds {shown}{pickles}",
        "name a repository that 'regionvlp push' made",
    )


def _refusal(name: HubName, endpoint: str, error: Exception) -> Exception:
    from huggingface_hub import errors

    if isinstance(error, errors.RevisionNotFoundError):
        message = f"{name.repo_id} has no revision '{name.revision}' at {endpoint}"
        return InputError(message, "name a branch, tag or commit")
    if isinstance(error, errors.GatedRepoError):
        message = f"{name.repo_id} is given to those alone who agreed to its terms"
        return InputError(message, f"agree at {endpoint}/{name.repo_id}, and log in with 'hf auth login'")
    if isinstance(error, errors.RepositoryNotFoundError):
        message = f"there is no model {name.repo_id} at {endpoint}, or it is private"
        return InputError(message, "check the name; for a private one, 'hf auth login' or set HF_TOKEN")
    return WeightsError(f"{endpoint} does not give {name}: {first_line(error)}", "try again later")


def upload_folder(name: HubName, folder: Path, *, private: bool, message: str) -> str:
    """Uploads the files of a folder as one commit; the repository, and a branch that is not there, are made.

    Args:
        name: where to. folder: its files, without sub-folders.
        private: whether a repository that is made now is seen by its owner alone; one that is there stays as it is.
        message: of the commit.

    Returns:
        The commit's address.

    Raises:
        InputError: there is no token, or it does not allow that, or the repository holds something else. Unreachable:
            the hub cannot be asked. WeightsError: the upload failed; nothing was changed then.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if hub_is_off():
        raise Unreachable("HF_HUB_OFFLINE is set", "unset it, or write the files with --dry-run DIR")
    if get_token() is None:
        raise InputError("the hub takes files from those alone who it knows", "'hf auth login', or set HF_TOKEN")
    endpoint = hub_endpoint()
    reach(endpoint)
    api = HfApi(endpoint=endpoint)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    with quiet_client():
        try:
            api.create_repo(name.repo_id, private=private, exist_ok=True)
            _check_ours(api, name.repo_id, {path.name for path in files})
            if name.revision != "main":
                api.create_branch(name.repo_id, branch=name.revision, exist_ok=True)
            adds = [CommitOperationAdd(path.name, str(path)) for path in files]
            done = api.create_commit(name.repo_id, adds, commit_message=message, revision=name.revision)
        except InputError:
            raise
        except Exception as error:
            raise _not_taken(name, endpoint, error) from None
    return str(done.commit_url)


def _check_ours(api: Any, repo_id: str, files: Collection[str]) -> None:
    """Refuses to lay a checkpoint over a repository of something else."""
    there = {sibling.rfilename for sibling in api.model_info(repo_id).siblings or ()} - {".gitattributes", "README.md"}
    if there and not there & {"detector.json"} and not there <= set(files):
        shown = ", ".join(sorted(there)[:SHOWN])
        raise InputError(f"{repo_id} holds something else already: {shown}", "choose a name that is new, or empty")


def _not_taken(name: HubName, endpoint: str, error: Exception) -> Exception:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        message = f"{endpoint} does not let this token write to {name.repo_id}"
        return InputError(message, "make one with write access, then 'hf auth login' or HF_TOKEN")
    return WeightsError(f"{endpoint} did not take {name}: {first_line(error)}", "nothing was changed there; push again")
