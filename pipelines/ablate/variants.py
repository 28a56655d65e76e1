"""The variants of an ablation: named layers of settings, and the grid that several ``--over`` make.

In: ``--over loss=global,rwa``, ``--over optim.lr=1e-4,3e-4``, a file of variants. Out: :class:`Variant`, each with a
layer that goes on top of the configuration. No key may get two values: it would not be clear which one was measured.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from regionvlp.config import flatten, merge, parse_assignments, read_yaml
from regionvlp.errors import ConfigError, nearest

# What they are, 'regionvlp ablate --help' says.
LOSS_NAMES = (
    "global", "filip", "taco", "taco_idf", "rwa", "rwa_no_refine", "rwa_select_token", "rwa_valid", "rwa_public"
)  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """One column of choices.

    Attributes:
        name: what tables call it, such as ``rwa`` or ``rwa, optim.lr=0.0003``.
        settings: the layer that makes it, on top of the configuration.
    """

    name: str
    settings: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """The name as part of a path."""
        return re.sub(r"[^\w.=+-]+", "_", self.name)


def build_variants(
    overs: Sequence[str], files: Sequence[Path] = (), assigned: Mapping[str, Any] | None = None
) -> list[Variant]:
    """Every combination of the axes, the last one varying fastest.

    Args:
        overs: ``axis=value,value``. An axis is ``loss`` (:data:`LOSS_NAMES`), ``frames`` or ``regions`` (of data and
            model together), or a dotted key of the configuration; its values are YAML.
        files: each an axis: a YAML mapping of names to layers of settings.
        assigned: what ``--set`` lays on top of all variants. It may say otherwise than a file, not than ``overs``.

    Raises:
        ConfigError: an axis or a name that does not exist, nothing to vary, a variant or an axis that is there twice,
            or a key that gets two values.
        InputError: a file that cannot be read.
    """
    given = [*(over.partition("=")[0].strip() for over in overs), *map(str, files)]
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice:
        raise ConfigError(f"'{twice}' is varied twice", "give all its values at once: --over key=a,b")
    asked = [_axis(over) for over in overs]
    axes = asked + [_axis_of(path) for path in files]
    if not axes:
        raise ConfigError("nothing to vary", "say what with --over, for example --over loss=global,filip,rwa")
    _check_assigned(assigned or {}, [variant for axis in asked for variant in axis])
    variants = [_combined(choice) for choice in itertools.product(*axes)]
    if any("train.seed" in flatten(layer) for layer in (assigned or {}, *(v.settings for v in variants))):
        raise ConfigError("train.seed cannot be set here", "say which seeds with --seeds, e.g. --seeds 0,1,2")
    folders = [variant.folder for variant in variants]
    twice = next((variant.name for variant in variants if folders.count(variant.folder) > 1), None)
    if twice:
        raise ConfigError(f"the variant '{twice}' is there twice", "name each value once")
    return variants


def _combined(choice: Sequence[Variant]) -> Variant:
    """One variant of each axis in one."""
    for one, other in itertools.combinations(choice, 2):
        key = _clash(one.settings, other.settings)
        if key:
            raise ConfigError(f"'{one.name}' and '{other.name}' set {key} to different values", "vary a key once")
    settings: dict[str, Any] = {}
    for variant in choice:
        settings = merge(settings, variant.settings)
    return Variant(", ".join(variant.name for variant in choice), settings)


def _check_assigned(assigned: Mapping[str, Any], variants: Sequence[Variant]) -> None:
    for variant in variants:
        key = _clash(assigned, variant.settings)
        if key:
            raise ConfigError(
                f"--set gives {key} another value than '{variant.name}' of --over", "leave one of the two out"
            )


def _clash(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The first dotted key that both set, and not to the same."""
    theirs = flatten(other)
    for key, value in flatten(one).items():
        for their_key, their_value in theirs.items():
            if key == their_key:
                if value != their_value:
                    return key
            elif key.startswith(f"{their_key}.") or their_key.startswith(f"{key}."):  # one sets all of a section
                return max(key, their_key, key=len)
    return None


def _axis(over: str) -> list[Variant]:
    key, equals, text = over.partition("=")
    key = key.strip()
    if not equals or not key or not text.strip():
        raise ConfigError(f"cannot read '--over {over}'", "write --over loss=global,rwa or --over section.key=1,2")
    if key == "loss":
        return [Variant(name.strip(), _loss(name.strip())) for name in text.split(",")]
    values = _values(over, text)
    if key in _PAIRED:
        return [Variant(f"{value} {key}", _PAIRED[key](value)) for value in values]
    if "." not in key:
        hint = nearest(key, ("loss", *_PAIRED)) or f"'loss', {', '.join(map(repr, _PAIRED))} or a key such as optim.lr"
        raise ConfigError(f"nothing called '{key}' can be varied", hint)
    return [Variant(f"{key}={_short(value)}", parse_assignments([f"{key}={_short(value)}"])) for value in values]


def _axis_of(path: Path) -> list[Variant]:
    layers = read_yaml(path)
    for name, layer in layers.items():
        if not isinstance(layer, dict):
            raise ConfigError(f"{path}: '{name}' is no layer of settings", "write 'name: {section: {key: value}}'")
    if not layers:
        raise ConfigError(f"{path} names no variants", "write 'name: {section: {key: value}}'")
    return [Variant(str(name), layer) for name, layer in layers.items()]


def _values(over: str, text: str) -> list[Any]:
    try:
        values = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError:
        raise ConfigError(f"cannot read the values of '--over {over}'", "separate YAML values by commas") from None
    return list(values)


def _short(value: Any) -> str:
    """A value as YAML in one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**9).removesuffix("\n").removesuffix("\n...").strip()


def _loss(name: str) -> dict[str, Any]:
    if name not in LOSS_NAMES:
        raise ConfigError(f"no loss called '{name}'", nearest(name, LOSS_NAMES) or f"losses: {', '.join(LOSS_NAMES)}")
    if name == "global":
        return {"loss": {"use_global": True, "use_local": False}}
    if name in ("filip", "taco", "taco_idf"):
        weight = "idf" if name == "taco_idf" else "equal"
        return {
            "loss": {"use_global": True, "use_local": True, "local": name.removesuffix("_idf"), "word_weight": weight}
        }
    return {
        "loss": {"use_global": True, "use_local": True, "local": "region_word", "region_word": _region_word(name)},
        **_DATA.get(name, {}),
    }


def _region_word(name: str) -> dict[str, Any]:
    """A whole section but for the temperature, so that nothing of the configuration's own form remains."""
    from regionvlp.losses import REGION_WORD_PRESETS  # imports torch

    changes: dict[str, tuple[str, dict[str, Any]]] = {
        "rwa": ("paper", {}),
        "rwa_no_refine": ("paper", {"refine": False}),
        "rwa_select_token": ("paper", {}),
        "rwa_valid": ("valid", {"local_loss": "nce_both"}),
        "rwa_public": ("public", {}),
    }
    preset, changed = changes[name]
    return REGION_WORD_PRESETS[preset].model_dump(exclude={"temperature"}) | changed


_DATA: dict[str, dict[str, Any]] = {
    "rwa_select_token": {"data": {"words": "nouns_and_verbs"}},
    # What the public score is a function of besides the tokens: it counts padded words and regions.
    "rwa_public": {
        "data": {"padding": "edge", "pad_text": True, "text_length": 100},
        "model": {"text": {"max_length": 100}},
    },
}
_PAIRED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "frames": lambda value: {"data": {"frames": value}, "model": {"video": {"frames": value}}},
    "regions": lambda value: {"data": {"regions": value}, "model": {"video": {"regions": value}}},
}
