"""What Prometheus scrapes from the webhook server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from swapper.deliveries import Outcome, Queue

__all__ = ["Metrics"]

_BUCKETS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._registry = CollectorRegistry()
        self.deliveries = Counter(
            "swapper_deliveries", "Deliveries to the webhook.", ["result"], registry=self._registry
        )
        self._deployments = Counter(
            "swapper_deployments", "Deployments that ended.", ["service", "result"], registry=self._registry
        )
        self._durations = Histogram(
            "swapper_deployment_duration_seconds",
            "How long deployments took.",
            ["service"],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )

    def finished(self, outcome: Outcome) -> None:
        """Count one deployment that has ended."""
        self._deployments.labels(outcome.service, outcome.result).inc()
        self._durations.labels(outcome.service).observe(outcome.duration_s)

    def observe(self, queue: Queue) -> None:
        """Show how many deployments wait and run in `queue` whenever they are asked for."""
        waiting = Gauge("swapper_deployments_waiting", "Releases that wait.", registry=self._registry)
        running = Gauge("swapper_deployments_running", "Deployments under way.", registry=self._registry)
        waiting.set_function(lambda: len(queue.waiting))
        running.set_function(lambda: len(queue.running))

    def text(self) -> bytes:
        """Everything, in the Prometheus text format."""
        return generate_latest(self._registry)
