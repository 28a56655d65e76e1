"""Configuration: pydantic models over YAML, with ``--set a.b=c`` on top.

In: a YAML file, a list of ``key=value`` strings. Out: a validated, frozen model. A key that does not exist is an error
that names the nearest one that does; a value out of range is one line that names the key, the value and the bound.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from regionvlp.errors import ConfigError, InputError, nearest


class Config(BaseModel):
    """Base of every configuration section: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())


@dataclass(frozen=True)
class Resumable:
    """Marks a setting that may change when a run goes on.

    Attributes:
        figures: whether what the run ends with may depend on it.
    """

    figures: bool


RESUMABLE = Resumable(figures=True)  # how long a run is, and what it calls best
HARMLESS = Resumable(figures=False)  # where it computes, what it writes, and how often
ConfigT = TypeVar("ConfigT", bound=Config)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file whose top level is a mapping (an empty file is an empty mapping).

    Raises:
        InputError: the file is missing or not text. ConfigError: it is not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", "check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file", "expected YAML") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ConfigError(f"{path}{where}: {problem}", "mend the YAML") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}, not a mapping", "write 'key: value' lines")
    return values


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Turns ``["a.b=1", "c=x"]`` into ``{"a": {"b": 1}, "c": "x"}``; values are read as YAML.

    Raises:
        ConfigError: an entry has no ``=`` or no key, or its value is not YAML.
    """
    nested: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise ConfigError(f"cannot read '--set {assignment}'", "write --set section.key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"cannot read the value of '--set {assignment}'", "quote it as YAML") from None
        for part in reversed(key.split(".")):
            value = {part.strip(): value}
        nested = merge(nested, value)
    return nested


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``base`` with the entries of ``over`` laid on top, mappings merged key by key."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``, and ``{"a": [{"b": 1}]}`` as ``{"a.0.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
            flat |= flatten({str(number): item for number, item in enumerate(value)}, f"{prefix}{key}.")
        elif isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def load_config(model: type[ConfigT], *layers: Mapping[str, Any], source: str = "the configuration") -> ConfigT:
    """Validates the layers, later ones winning, as one ``model``.

    Args:
        model: the section that the layers describe.
        layers: nested mappings, for example the YAML file, the command-line options, the ``--set`` values.
        source: what to call the whole in an error.

    Raises:
        ConfigError: one line naming the first offending key.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values = merge(values, layer)
    return validate(model, values, source)


def validate(
    model: type[ConfigT],
    values: Mapping[str, Any],
    source: str,
    elsewhere: Callable[[str], Sequence[str]] = lambda key: (),
) -> ConfigT:
    """Validates one mapping as ``model``; a failure becomes a one-line :class:`ConfigError`.

    Args:
        model: what it should be.
        values: nested mappings.
        source: what to call them in an error.
        elsewhere: which other kinds of configuration have a dotted key that this one has not, for the hint.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _explain(model, error, source, elsewhere) from None


def known_keys(model: type[BaseModel]) -> list[str]:
    """Every dotted key of a configuration, sections included."""
    return [key for key, _ in _fields(model, "")]


def _fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield prefix + name, field
        inner = _model_class(field.annotation)
        if inner is not None and not _holds_many(field.annotation):
            yield from _fields(inner, f"{prefix}{name}.")


def resumable_keys(model: type[BaseModel], marks: Collection[Resumable] = (RESUMABLE, HARMLESS)) -> set[str]:
    """The dotted keys that are marked so where they are defined."""
    return {key for key, field in _fields(model, "") if any(mark in field.metadata for mark in marks)}


def dump_yaml(config: BaseModel) -> str:
    """The configuration as YAML that :func:`read_yaml` and :func:`validate` read back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _explain(
    model: type[BaseModel], error: ValidationError, source: str, elsewhere: Callable[[str], Sequence[str]]
) -> ConfigError:
    errors = error.errors()
    # Unknown keys first: a misspelt key often causes the other complaint as well.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    key = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if first["type"] == "extra_forbidden":
        section = _section(model, first["loc"][:-1])
        choices = sorted(section.model_fields) if section else []
        others = elsewhere(key)
        hint = nearest(str(first["loc"][-1]), choices) or _deeper(model, key) or f"known keys: {', '.join(choices)}"
        if others:
            hint = f"'{key}' is a key of {' and '.join(others)}: set task={others[0]}, or leave it out"
        return ConfigError(f"unknown key '{key}' in {source}{more}", hint)
    message = str(first["msg"]).removeprefix("Value error, ")
    value = first["input"]
    shown = "" if isinstance(value, Mapping) else f" = {value!r}"
    return ConfigError(f"{key}{shown} in {source}: {message[:1].lower()}{message[1:]}{more}", f"correct '{key}'")


def _deeper(model: type[BaseModel], key: str) -> str:
    """Names a key further in, of the same section, whose last part is nearest to that of an unknown one."""
    section, _, last = key.rpartition(".")
    places = {known.rpartition(".")[2]: known for known in known_keys(model) if known.startswith(f"{section}.")}
    found = difflib.get_close_matches(last, places, n=1)
    return f"did you mean '{places[found[0]]}'?" if found else ""


def _section(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel] | None:
    """The model class that a validation error's location lies in, or None where it is not a plain section."""
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int):
            continue  # an item of a list, whose model is the list's
        field = current.model_fields.get(part) if current else None
        current = _model_class(field.annotation) if field else None
    return current


def _holds_many(annotation: Any) -> bool:
    """Whether a field is a list of sections, whose keys no dotted path reaches."""
    if get_origin(annotation) in (Union, UnionType):
        return any(_holds_many(arg) for arg in get_args(annotation))
    return get_origin(annotation) in (list, tuple)


def _model_class(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, list, tuple):
        return next((found for arg in get_args(annotation) if (found := _model_class(arg))), None)
    return None
