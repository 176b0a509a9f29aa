"""Counts of a server, in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .engine import Engine


class Metrics:
    """The requests of a server, by what was asked and the status of the answer."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()

    def text(self, engine: Engine) -> str:
        """The page `/metrics`."""
        lines: list[str] = []

        def metric(name: str, kind: str, about: str, values: Sequence[tuple[str, float]]) -> None:
            lines.extend((f"# HELP nlrn_{name} {about}", f"# TYPE nlrn_{name} {kind}"))
            lines.extend(f"nlrn_{name}{labels} {value}" for labels, value in values)

        requests = [
            (f'{{path="{path}",status="{status}"}}', count)
            for (path, status), count in sorted(self.requests.items())
        ]
        jobs = [(f'{{state="{state}"}}', count) for state, count in sorted(engine.finished.items())]
        metric("requests_total", "counter", "Requests answered.", requests)
        metric("jobs_finished_total", "counter", "Jobs that came to an end.", jobs)
        metric("jobs_waiting", "gauge", "Jobs in the queue.", [("", engine.waiting)])
        metric("jobs_running", "gauge", "Jobs that are worked on.", [("", engine.running)])
        metric("work_seconds_total", "counter", "Time of the work on jobs.", [("", engine.work_seconds)])
        metric("held_bytes", "gauge", "Uploads and results in memory.", [("", engine.held)])
        metric("held_bytes_limit", "gauge", "The bound of held_bytes.", [("", engine.limits.memory)])
        return "\n".join(lines) + "\n"
