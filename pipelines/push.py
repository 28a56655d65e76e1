"""``regionvlp push``: shares a trained model on the Hugging Face hub."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import click

from regionvlp.errors import InputError
from regionvlp.pipelines.output import console_for, human_bytes, json_option, write_json


@click.command("push")
@click.argument("run", metavar="RUN|CHECKPOINT", type=click.Path(path_type=Path))
@click.argument("name", metavar="hub:OWNER/NAME")
@click.option("--private", is_flag=True, help="Where the repository is made now: for its owner alone.")
@click.option("--revision", metavar="BRANCH", help="Branch, made where it is missing.  [main]")
@click.option("--licence", "--license", default="unknown", metavar="ID", show_default=True,
              help="Of the model, as the hub calls it, e.g. mit.")  # fmt: skip
@click.option("--dry-run", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Write the files to this new folder, and upload nothing.")  # fmt: skip
@json_option
def command(
    run: Path, name: str, private: bool, revision: str | None, licence: str, dry_run: Path | None, json_path: str | None
) -> None:
    """Share the best checkpoint of a run: weights, configuration, tokenizer, detector's identity and a model card.

    Nothing of this machine goes along: no paths, no state of the optimizer, no log. The token is the one of
    'hf auth login', or HF_TOKEN.
    """
    from regionvlp.weights.hub_models import hub_name

    target = hub_name(name)
    if target is None:
        raise InputError(f"'{name}' names no repository of the hub", "write hub:owner/name")
    if revision is not None:
        if target.revision not in ("main", revision):
            raise InputError(f"{name} and --revision {revision} name two branches", "give one of them")
        target = replace(target, revision=revision)
    if dry_run is not None and dry_run.is_dir() and any(dry_run.iterdir()):
        raise InputError(f"{dry_run} is not empty", "give --dry-run a new folder")
    from regionvlp.checkpoints.sharing import push, shareable, write_shared

    found, console = shareable(run), console_for(json_path)
    console.print(f"checkpoint {found.checkpoint.path}: {found.why}", markup=False)
    told = {"checkpoint": str(found.checkpoint.path), "why": found.why, "name": str(target)}
    with tempfile.TemporaryDirectory(prefix="regionvlp-push-") as temporary:
        folder = dry_run or Path(temporary)
        write_shared(found, folder, target, licence=licence)
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        for file, size in files.items():
            console.print(f"  {file:<18} {human_bytes(size)}", markup=False)
        if dry_run:
            console.print(f"dry run: wrote {dry_run}; nothing was uploaded", markup=False)
        else:
            told["commit"] = push(found, folder, target, private=private)
            console.print(f"done: {told['commit']}; next: regionvlp eval csv --checkpoint {target}", markup=False)
    write_json({**told, "files": files}, json_path)
