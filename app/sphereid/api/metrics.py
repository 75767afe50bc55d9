"""What /metrics shows. Labels are routes, stages and outcomes, never ids: their number is bounded."""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sphereid.inference.batcher import BatchReport

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})


class Metrics:
    """The service's counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        r = self.registry
        self._requests = Counter(
            "sphereid_requests", "Requests answered.", ["method", "route", "status"], registry=r
        )
        self._latency = Histogram(
            "sphereid_request_seconds", "Time to answer.", ["route"], buckets=_SECONDS, registry=r
        )
        self._stages = Histogram(
            "sphereid_stage_seconds", "Time of one step.", ["stage"], buckets=_SECONDS, registry=r
        )
        self.faces: Final = Counter("sphereid_faces", "Faces found.", registry=r)
        self.decisions: Final = Counter("sphereid_decisions", "Decisions.", ["outcome"], registry=r)
        self.enrolled: Final = Counter("sphereid_enrolled_faces", "Faces enrolled.", registry=r)
        self._batch = Histogram(
            "sphereid_batch_faces", "Faces a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=r
        )
        self._batch_wait = Histogram(
            "sphereid_batch_wait_seconds", "Longest wait in a batch.", buckets=_SECONDS, registry=r
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request. route: the template, not the path."""
        self._requests.labels(method if method in _METHODS else "OTHER", route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def stage(self, stage: str, milliseconds: float) -> None:
        """Count one step of the pipeline."""
        self._stages.labels(stage).observe(milliseconds / 1e3)

    def batch(self, report: BatchReport) -> None:
        """Count one batch of the embedder."""
        self._batch.observe(report.crops)
        self._batch_wait.observe(report.waited)

    def watch_queue(self, name: str, depth: Callable[[], int]) -> None:
        """Show a queue's depth at each scrape."""
        gauge = Gauge(f"sphereid_{name}", "Waiting or running now.", registry=self.registry)
        gauge.set_function(depth)

    def watch_galleries(self, sizes: Callable[[], dict[str, int]]) -> None:
        """Show the totals over all galleries at each scrape."""
        self.registry.register(_Sizes(sizes))

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)


class _Sizes(Collector):
    def __init__(self, sizes: Callable[[], dict[str, int]]) -> None:
        self._sizes = sizes

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        for name, value in self._sizes().items():
            yield GaugeMetricFamily(f"sphereid_gallery_{name}", f"Stored {name}, all galleries.", value=value)
