"""What ``--videos`` may be, and how each becomes a listing and files for the decoder."""

from __future__ import annotations

from regionvlp.extract.sources.decoding import RowDecoder as RowDecoder
from regionvlp.extract.sources.decoding import open_pool as open_pool
from regionvlp.extract.sources.looking import listed as listed
from regionvlp.extract.sources.looking import refuse_absent as refuse_absent
from regionvlp.extract.sources.looking import refuse_gone as refuse_gone
from regionvlp.extract.sources.opening import open_source as open_source
from regionvlp.extract.sources.source import Source as Source
