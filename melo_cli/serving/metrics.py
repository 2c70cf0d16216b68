"""What a server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_ROUTE_SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512)
_REQUEST_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "melo_requests", "Requests by path and HTTP status.", ("path", "status"), registry=self._registry
        )
        self.prompts = Counter(
            "melo_prompts", "Prompts by what answers them.", ("route",), registry=self._registry
        )
        self.tokens = Counter("melo_tokens", "Tokens read and written.", ("kind",), registry=self._registry)
        self.in_flight = Gauge("melo_requests_in_flight", "Requests being answered.", registry=self._registry)
        self.snapshot = Gauge("melo_snapshot", "The snapshot that routes.", registry=self._registry)
        self.route_seconds = Histogram(
            "melo_route_seconds", "Time to take a route.", buckets=_ROUTE_SECONDS, registry=self._registry
        )
        self.request_seconds = Histogram(
            "melo_request_seconds",
            "Time to answer a request.",
            ("path",),
            buckets=_REQUEST_SECONDS,
            registry=self._registry,
        )

    def page(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)
