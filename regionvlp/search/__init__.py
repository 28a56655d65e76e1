"""Search in one's own videos: an index of moments, and answers that say which boxes answer which words.

``clips``      what is indexed: a stretch of a file with the regions found in it
``encoders/``  whatever turns clips and sentences into vectors: labels as words or sentences, trained checkpoints
``folder``     the index on disk: what counts, replaced as a whole, so that a reader never sees half of anything
``segment``    the rows of some clips: vectors, tokens, boxes, thumbnails, memory-mapped
``writer``     adds, replaces and removes clips; what it was killed at is done again
``index``      opening and asking: :func:`open_index`

Everything is exported from here and imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regionvlp.lazy import exports

if TYPE_CHECKING:
    from regionvlp.search.index import Index as Index
    from regionvlp.search.index import open_index as open_index
    from regionvlp.search.writer import IndexWriter as IndexWriter

__getattr__, __dir__ = exports(
    __name__,
    {"regionvlp.search.index": ["Index", "open_index"], "regionvlp.search.writer": ["IndexWriter"]},
)
