"""The reference of settings: current, complete, and read from where settings are explained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import BaseModel, Field

from regionvlp.config import Config
from regionvlp.pipelines import reference as made
from regionvlp.pipelines.reference import Document, documents, reference

COMMITTED = Path(__file__).resolve().parents[2] / "configs" / "REFERENCE.md"


class Inner(Config):
    """A part.

    Attributes:
        speed, weight: how ``fast``,
            see :mod:`some.where`.
    """

    speed: float = Field(default=2e-4, gt=0, le=3)
    weight: Annotated[int, Field(ge=1, le=9)] | None = None


class Outer(Config):
    """Everything."""

    kind: Literal["a", "b"] = "a"  # which one
    # Said above
    # in two lines.
    size: int = 3
    inner: Inner = Inner()
    parts: tuple[Inner, ...] = ()  # the parts


def only(monkeypatch: pytest.MonkeyPatch, *models: type[BaseModel]) -> str:
    monkeypatch.setattr(made, "documents", lambda: [Document(model.__name__, "About.", model) for model in models])
    return reference()


def test_the_committed_reference_is_current() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == reference(), (
        "run python -m regionvlp.pipelines.reference configs/REFERENCE.md"
    )


def leaves(model: type[BaseModel]) -> int:
    """Settings of the model itself that are no sections."""
    kinds = (field.annotation for field in model.model_fields.values())
    return sum(not (isinstance(kind, type) and issubclass(kind, BaseModel)) for kind in kinds)


def test_every_setting_has_a_row() -> None:
    text = reference()
    for document in documents():
        for name, field in document.model.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel) and leaves(kind):
                assert f"### `{name}`" in text
                for key in kind.model_fields:
                    assert f"| `{key}` |" in text or f"### `{name}.{key}`" in text


def test_rows_say_values_default_and_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    text = only(monkeypatch, Outer)
    assert "| `kind` | `a`, `b` | `a` | which one |" in text
    assert "| `size` | whole number | `3` | Said above in two lines. |" in text
    assert "| `parts` | a list of `inner` | `[]` | the parts |" in text
    assert "### `inner`\n\nA part.\n" in text
    assert "### `parts`, each of the list" in text
    assert "| `speed` | number > 0, ≤ 3 | `2.0e-4` | how `fast`, see `some.where`. |" in text
    assert "| `weight` | whole number 1 to 9, or `null` | `null` | how `fast`, see `some.where`. |" in text


def test_defaults_are_written_as_yaml_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert yaml.safe_load("2.0e-4") == 2e-4
    assert "`2.0e-4`" in only(monkeypatch, Inner)


def test_what_two_systems_share_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(Outer):
        """Another system."""

        kind: Literal["a", "b"] = "b"  # which one

    text = only(monkeypatch, Outer, Other)
    assert text.count("### `inner`") == 1
    assert text.count("| `kind` |") == 2


def test_an_unexplained_setting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Config):
        """Says nothing."""

        secret: int = 1

    with pytest.raises(LookupError, match="secret"):
        only(monkeypatch, Silent)


def test_comments_of_a_yaml_file_go_on_below() -> None:
    notes = made._yaml_notes("extract/default.yaml")
    assert notes["detector.precision"].endswith("Shards record it and do not mix")
    assert notes["video.frames"].startswith("one from the middle")
    assert "detector" not in notes
