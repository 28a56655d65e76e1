"""Rendering of one-file pages: jinja2 with escaping on, pictures inlined as JPEG."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from regionvlp.store.files import replacing


def environment(package: str = "regionvlp.report") -> Environment:
    """The templates of a package, and behind them those of this one, whose style all pages share."""
    folders = dict.fromkeys((package, "regionvlp.report"))
    return Environment(
        loader=ChoiceLoader([PackageLoader(folder, ".") for folder in folders]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


_environment = environment()


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fills ``template`` (a file of this folder) and writes the page to ``path``, whole or not at all."""
    html = _environment.get_template(template).render(**values)
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def inline_jpeg(picture: NDArray[np.uint8], quality: int = 85, longer_side: int | None = None) -> str:
    """A [H, W, 3] uint8 RGB picture as a ``data:`` URL, made smaller where it is longer than ``longer_side`` pixels."""
    buffer, image = io.BytesIO(), Image.fromarray(picture)
    if longer_side is not None:
        image.thumbnail((longer_side, longer_side))
    image.save(buffer, format="JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
