"""What a server counts, in the text format of Prometheus (version 0.0.4)."""

from __future__ import annotations

import threading
from collections import Counter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)  # seconds


class Metrics:
    """Counts requests and times searches; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets = [0] * len(BUCKETS)
        self._searches, self._seconds = 0, 0.0
        self._gauges: dict[str, tuple[str, float]] = {}

    def requested(self, route: str, status: int) -> None:
        """Counts a request by its route (a pattern, never what a client wrote) and the answer's status."""
        with self._lock:
            self._requests[route, status] += 1

    def searched(self, seconds: float) -> None:
        """Notes how long a search took."""
        with self._lock:
            self._searches += 1
            self._seconds += seconds
            for number, limit in enumerate(BUCKETS):
                self._buckets[number] += seconds <= limit

    def gauge(self, name: str, explained: str, value: float) -> None:
        """Sets what has a value now."""
        with self._lock:
            self._gauges[name] = (explained, value)

    def text(self) -> str:
        """All of it."""
        with self._lock:
            lines = [
                "# HELP regionvlp_requests_total Requests by route and status.",
                "# TYPE regionvlp_requests_total counter",
            ]
            for (route, status), count in sorted(self._requests.items()):
                lines.append(f'regionvlp_requests_total{{route="{route}",status="{status}"}} {count}')
            name = "regionvlp_search_seconds"
            lines += [f"# HELP {name} Time of a search, waiting not counted.", f"# TYPE {name} histogram"]
            for limit, count in zip(BUCKETS, self._buckets, strict=True):
                lines.append(f'{name}_bucket{{le="{limit:g}"}} {count}')
            lines += [f'{name}_bucket{{le="+Inf"}} {self._searches}', f"{name}_sum {self._seconds:.6f}"]
            lines.append(f"{name}_count {self._searches}")
            for gauge, (explained, value) in sorted(self._gauges.items()):
                lines += [f"# HELP regionvlp_{gauge} {explained}", f"# TYPE regionvlp_{gauge} gauge"]
                lines.append(f"regionvlp_{gauge} {value:g}")
        return "\n".join(lines) + "\n"
