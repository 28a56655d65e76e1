"""The reference of every setting, made from the code: ``python -m regionvlp.pipelines.reference configs/REFERENCE.md``.

In: the configuration classes of :func:`documents`. Out: Markdown, a table a section. What a setting does is read from
where it is explained already: the ``Attributes`` of its class, the comment beside or above it, or the comments of the
shipped YAML file. A setting that is explained in none of them is an error, so that the reference stays complete.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from regionvlp.config import Resumable

HEADER = """# Every setting

Made from the code by `python -m regionvlp.pipelines.reference configs/REFERENCE.md`; a test holds that it is current.
A key stands in a YAML file under its section, or on the command line as `--set section.key=value`, where the value is
YAML. A key that does not exist is an error that names the nearest one that does. `null` is a value.
"""


@dataclass(frozen=True)
class Document:
    """One kind of configuration file.

    Attributes:
        title: its heading.
        about: a sentence on who reads it.
        model: the class that it is validated as.
        explained: a shipped YAML file below ``configs`` whose comments explain the keys.
    """

    title: str
    about: str
    model: type[BaseModel]
    explained: str | None = None


def documents() -> list[Document]:
    """Every kind of configuration file, in the order of the reference."""
    from regionvlp.extract.settings import ExtractConfig
    from regionvlp.training.config import RUN_CONFIGS

    return [
        Document(
            "Extraction",
            "Read by `regionvlp extract --config FILE`; without a file all defaults hold, which are those of "
            "[extract/default.yaml](extract/default.yaml).",
            ExtractConfig,
            "extract/default.yaml",
        ),
        *(
            Document(
                f"Training, task `{task}`",
                "Read by `regionvlp pretrain`, `finetune`, `ablate` and `profile`, `--config FILE`; a run keeps it as "
                "`RUN/config.yaml`.",
                model,
            )
            for task, model in RUN_CONFIGS.items()
        ),
    ]


def reference() -> str:
    """The whole reference as Markdown.

    Raises:
        LookupError: a setting that nothing explains.
    """
    parts = [HEADER]
    told: set[tuple[str, type[BaseModel]]] = set()
    for document in documents():
        parts.append(f"## {document.title}\n\n{document.about}\n")
        parts.extend(_tables(document, told))
    return "\n".join(parts)


@dataclass
class _Section:
    """A table to be: a configuration class, and where in the file it stands."""

    model: type[BaseModel]
    path: str = ""
    item: bool = field(default=False, kw_only=True)  # one of a list


def _tables(document: Document, told: set[tuple[str, type[BaseModel]]]) -> Iterator[str]:
    """A table for the file's top, and for each section below it in the order they stand.

    Sections that an earlier document has in the same place are ``told`` already and left out.
    """
    notes = _yaml_notes(document.explained) if document.explained else {}
    waiting = [_Section(document.model)]
    while waiting:
        section = waiting.pop(0)
        if (section.path, section.model) in told:
            continue
        told.add((section.path, section.model))
        rows: list[tuple[str, str, str, str]] = []
        below: list[_Section] = []
        for name, info in section.model.model_fields.items():
            path = f"{section.path}.{name}" if section.path else name
            inner = _inner_model(info.annotation)
            if inner is not None:
                below.append(_Section(inner, path, item=get_origin(info.annotation) in (list, tuple)))
            if info.annotation == inner:
                continue
            text = _meaning(section.model, name) or notes.get(path)
            if not text:
                raise LookupError(f"nothing explains '{path}' of {section.model.__name__}")
            if any(isinstance(mark, Resumable) for mark in info.metadata):
                text = f"{text.rstrip('.')}. May change when a run goes on."
            rows.append((name, _kind(info.annotation, info.metadata), _default(info), text))
        if rows:
            yield _table(section, rows)
        waiting[:0] = below


def _table(section: _Section, rows: Sequence[tuple[str, str, str, str]]) -> str:
    title = f"`{section.path}`" + (", each of the list" if section.item else "") if section.path else "At the top"
    lines = [f"### {title}", "", _first_sentence(section.model), ""]
    lines += ["| key | values | default | what it is |", "|---|---|---|---|"]
    for name, kind, default, text in rows:
        lines.append("| " + " | ".join(_cell(part) for part in (f"`{name}`", kind, default, text)) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# What a setting may be


def _kind(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """In words: ``1 to 256``, ``zeros`` or ``edge``, a path, a list of ..."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0], (*metadata, *annotation.__metadata__))
    if origin in (Union, UnionType):
        words = [_kind(part, metadata) for part in arguments if part is not NoneType]
        return ", or ".join(words) + (", or `null`" if NoneType in arguments else "")
    if origin is Literal:
        return ", ".join(f"`{_yaml(value)}`" for value in arguments)
    if origin in (list, tuple):
        items = [part for part in arguments if part is not Ellipsis]
        if inner := _inner_model(annotation):
            return f"a list of {_plain(inner)}"
        alike = len({str(part) for part in items}) == 1
        count = f"{len(items)} of " if origin is tuple and Ellipsis not in arguments and len(items) > 1 else ""
        return f"a list: {count}{_kind(items[0]) if alike else ', '.join(map(_kind, items))}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"a section of {_plain(annotation)}"
    if annotation is bool:
        return "`true`, `false`"
    names = {int: "whole number", float: "number", str: "text", Path: "path"}
    return " ".join(part for part in (names.get(annotation, "any value"), _bounds(metadata)) if part)


def _bounds(metadata: Sequence[Any]) -> str:
    limits: dict[str, Any] = {}
    for part in metadata:
        for entry in part.metadata if isinstance(part, FieldInfo) else (part,):
            for name in ("ge", "gt", "le", "lt", "pattern"):
                if getattr(entry, name, None) is not None:
                    limits[name] = getattr(entry, name)
            limits |= {k: v for k, v in getattr(entry, "__dict__", {}).items() if k == "pattern" and v is not None}
    if "pattern" in limits:
        return f"that fits `{limits['pattern']}`"
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    if {"ge", "le"} == set(limits):
        return f"{limits['ge']:,} to {limits['le']:,}"
    return ", ".join(f"{signs[name]} {_number(limits[name])}" for name in signs if name in limits)


def _number(value: Any) -> str:
    power = int(value).bit_length() - 1
    return f"2^{power}" if value > 1e9 and value == 1 << power else f"{value:,g}"


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "must be given"
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    """The value as a file would have it."""
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, float) and 0 < abs(value) < 1e-3:
        mantissa, _, power = f"{value:.6e}".partition("e")
        # YAML takes 1e-05 for text, and 1.0e-5 for a number.
        return f"{float(mantissa)}e{int(power)}"
    dumped = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return dumped.removesuffix("\n").removesuffix("\n...")


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """The section that a setting is, may be, or lists."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, list, tuple, Annotated):
        return next((found for part in get_args(annotation) if (found := _inner_model(part))), None)
    return None


def _plain(model: type[BaseModel]) -> str:
    return f"`{model.__name__.removesuffix('Settings').lower()}`"


# What a setting does


def _meaning(model: type[BaseModel], name: str) -> str | None:
    """What the class that introduces a setting, or one that inherits it, says about it."""
    for owner in model.__mro__:
        if owner in (BaseModel, object):
            break
        found = _attributes(owner).get(name) or _comments(owner).get(name)
        if found:
            return found
    return None


def _first_sentence(model: type[BaseModel]) -> str:
    first = " ".join((inspect.getdoc(model) or "").split("\n\n")[0].split())
    return _markdown(first)


@cache
def _attributes(owner: type) -> dict[str, str]:
    """The entries of the docstring's ``Attributes``; an entry may be about several."""
    text = textwrap.dedent((owner.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0])
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", text):
        names, colon, words = entry.partition(": ")
        if colon and re.fullmatch(r"\w+(, \w+)*", names.strip()):
            said = _markdown(" ".join(words.split()))
            found |= dict.fromkeys(names.strip().split(", "), said)
    return found


@cache
def _comments(owner: type) -> dict[str, str]:
    """The comments beside or just above the settings of a class, by name."""
    try:
        source = textwrap.dedent(inspect.getsource(owner))
    except (OSError, TypeError):
        return {}
    said = {
        token.start[0]: (token.line.strip().startswith("#"), token.string.lstrip("# "))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    tree = ast.parse(source).body[0]
    assert isinstance(tree, ast.ClassDef)
    for node in tree.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        beside = [said[line][1] for line in range(node.lineno, (node.end_lineno or node.lineno) + 1) if line in said]
        above: list[str] = []
        line = node.lineno - 1
        while not beside and line in said and said[line][0]:
            above.insert(0, said[line][1])
            line -= 1
        if beside or above:
            found[node.target.id] = _markdown(" ".join(beside or above))
    return found


@cache
def _yaml_notes(name: str) -> dict[str, str]:
    """The comments of a shipped YAML file, by dotted key: beside the key, and going on below it further right."""
    text = (resources.files("regionvlp.configs") / name).read_text(encoding="utf-8")
    found: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    current = ""
    for line in text.splitlines():
        entry = re.match(r"( *)(\w+):[^#]*(?:# *(.*))?$", line)
        comment = re.match(r" {8,}# *(.*)$", line)
        if comment and current in found:
            found[current] += " " + comment[1]
        elif entry:
            indent = len(entry[1])
            parents = [(depth, key) for depth, key in parents if depth < indent]
            current = ".".join([*(key for _, key in parents), entry[2]])
            parents.append((indent, entry[2]))
            if entry[3]:
                found[current] = entry[3]
    return found


def _markdown(text: str) -> str:
    """reStructuredText's roles and literals as Markdown's code."""
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")


@click.command("reference")
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Write the reference of every setting to FILE."""
    file.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    command()
