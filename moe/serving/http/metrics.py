"""Prometheus metrics: what was asked and answered, and what the engine holds."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..requests import EngineState, FinishEvent, ServingEngine

FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 6.0, 10.0, 30.0, 60.0)
"""Seconds; 6 is S-LoRA's objective."""

GAUGES = {
    "queued": "Requests that wait.",
    "running": "Requests that are answered.",
    "free_pages": "Pages of memory that hold nothing.",
    "total_pages": "Pages of memory for keys, values and experts.",
    "cache_pages": "Pages that hold keys and values.",
    "expert_pages": "Pages that hold experts.",
}
COUNTERS = {
    "loads": "Experts brought to the device.",
    "hits": "Requests whose experts were on the device already.",
    "evictions": "Experts that made room for others.",
    "aborted": "Requests dropped since their first token would have come too late.",
    "generated_tokens": "Tokens generated.",
}


class ApiMetrics:
    """All metrics of one server."""

    def __init__(self, engine: ServingEngine):
        """Count for this engine."""
        self.registry = CollectorRegistry()
        self.registry.register(_EngineCollector(engine))
        self._requests = Counter(
            "finlora_requests", "Requests that ended.", ("kind", "model", "finish"), registry=self.registry
        )
        self._tokens = Counter(
            "finlora_tokens", "Tokens read and written.", ("kind", "model", "side"), registry=self.registry
        )
        self._first_token = Histogram(
            "finlora_first_token_seconds",
            "Seconds from submission to the first token.",
            ("kind",),
            buckets=FIRST_TOKEN_BUCKETS,
            registry=self.registry,
        )
        self._answers = Counter(
            "finlora_http_answers",
            "HTTP answers; status 0 was never sent.",
            ("path", "status"),
            registry=self.registry,
        )

    def ended(self, kind: str, model: str, event: FinishEvent) -> None:
        """Count a request.

        Args:
            kind: base, expert, mixture or weights.
            model: Its name.
            event: Its end.
        """
        self._requests.labels(kind, model, event.reason).inc()
        self._tokens.labels(kind, model, "prompt").inc(event.prompt_tokens)
        self._tokens.labels(kind, model, "new").inc(event.new_tokens)
        if event.first_token_seconds is not None:
            self._first_token.labels(kind).observe(event.first_token_seconds)

    def answered(self, path: str, status: int) -> None:
        """Count an HTTP answer by the route's path."""
        self._answers.labels(path, status).inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    """Reads the engine's state when Prometheus asks."""

    def __init__(self, engine: ServingEngine):
        self._engine = engine

    def describe(self) -> list[Metric]:
        """Nothing, so that registering does not ask the engine."""
        return []

    def collect(self) -> Iterator[Metric]:
        state = self._engine.state()
        for field, text in GAUGES.items():
            yield GaugeMetricFamily(f"finlora_{field}", text, value=getattr(state, field))
        for field, text in COUNTERS.items():
            yield CounterMetricFamily(f"finlora_{field}", text, value=getattr(state, field))
        yield _residency(state)


def _residency(state: EngineState) -> Metric:
    metric = GaugeMetricFamily(
        "finlora_resident_bytes", "Bytes of each expert on the device.", labels=("expert",)
    )
    for expert, size in state.resident.items():
        metric.add_metric([expert], size)
    return metric
