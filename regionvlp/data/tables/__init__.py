"""Tables and lists as users have them, read by one reader with one vocabulary of columns.

What ``extract --videos`` takes as a list, ``pretrain`` and ``eval`` take as captions, and the other way round. Kinds of
file, each also compressed with gzip; what a file is shows in its content, and only then in its name:

- ``.csv``: comma, semicolon, tab or bar separated, whichever the first line holds most of; quotes as in RFC 4180.
- ``.tsv``: tab separated. Quotation marks belong to the text, unless the file plainly was written with quoting (a
  quoted field holds a line break or a doubled mark, as pandas writes them).
- ``.txt``: a name a line; ``name label`` with whole numbers as labels; or as ``.tsv``, where the first line has a tab.
- ``.parquet``: columns of text, numbers, times, lists; of nested pictures or videos (``bytes`` and ``path``), the path.
- ``.jsonl``, ``.ndjson``: an object a line.
- ``.json``: a list of objects; ``{video: caption}``, ``{video: [captions]}``, ``{video: {...}}``; pandas' columns
  ``{column: {row: value}}``; COCO (``images`` and ``annotations``); Karpathy (``images`` with ``sentences``).

Columns go by name, in any case of letters; :data:`~regionvlp.data.tables.vocabulary.VOCABULARY` lists the names that
are known, and ``columns: {video: clip, caption: words}`` names others. Without a header, the column whose cells look
like names is the video, wherever it stands (``caption TAB name``, as CC3M and DemoVLP have it, and the reverse), and
the one with words is the caption. Where that cannot be told, the file is refused in a line that speaks of the columns.

A cell may hold a list of captions (``['a dog', 'it runs']``); HTML entities in captions are decoded. Stretches of time
are ``start`` and ``end``, ``start`` and ``duration``, a ``start`` alone, frame numbers beside ``fps``, or pairs in one
cell (``[[0, 5], [5, 8.5]]``); times are seconds, ``MM:SS`` or ``HH:MM:SS.mmm``. Rows without a video or a caption are
left out and counted up to one in a hundred, and refused beyond.
"""

from __future__ import annotations

from regionvlp.data.tables.table import SUFFIXES as SUFFIXES
from regionvlp.data.tables.table import Table as Table
from regionvlp.data.tables.vocabulary import VOCABULARY as VOCABULARY
