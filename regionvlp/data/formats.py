"""The words of a configuration that say how captions are read; nothing is imported here, so that settings are light."""

from __future__ import annotations

from typing import Literal

CaptionFormat = Literal["auto", "csv", "jsonl", "msrvtt", "msvd", "didemo", "lsmdc"]
Queries = Literal["all", "first", "index_file"]
