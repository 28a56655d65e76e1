"""The vocabularies that travel with a detector's weights. Free of torch."""

from __future__ import annotations

from pathlib import Path

from regionvlp.errors import WeightsError


def read_names(path: Path | None, count: int) -> list[str] | None:
    """The lines of a vocabulary, or None where there is none.

    Raises:
        WeightsError: it cannot be read, or has not ``count`` lines, one for each class of the detector.
    """
    if path is None:
        return None
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"cannot read the vocabulary {path}: {error}", "expected one class a line") from None
    if len(names) != count:
        raise WeightsError(
            f"{path} names {len(names)} classes, but the weights have {count}", "give the vocabulary of these weights"
        )
    return names
