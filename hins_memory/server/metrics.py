"""Prometheus metrics of one server, in a registry of its own."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics", "router"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """What a server counts. No label holds what a client sent: their values are routes, versions and fixed words."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter("hins_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.request_seconds = Histogram(
            "hins_request_seconds", "From the first byte to the last.", ["route"], buckets=_SECONDS, registry=registry
        )
        self.embedding_seconds = Histogram(
            "hins_embedding_seconds",
            "Of one embedding request: waiting and computing.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.texts = Counter("hins_texts", "Texts embedded.", ["version", "role"], registry=registry)
        self.batch_texts = Histogram(
            "hins_batch_texts", "Texts that went through an encoder at a time.", buckets=_TEXTS, registry=registry
        )
        self.waiting = Gauge("hins_waiting_texts", "Texts that wait for an encoder.", registry=registry)
        self.refused = Counter(
            "hins_refused", "Requests refused, by the code of the error.", ["code"], registry=registry
        )
        self.cancelled = Counter("hins_cancelled", "Requests whose client went away.", registry=registry)
        self.loaded = Gauge("hins_loaded_encoders", "Encoders in memory.", registry=registry)
        self.serving = Gauge("hins_serving_version", "1 for the version that serves.", ["version"], registry=registry)


router = APIRouter()


@router.get("/metrics", include_in_schema=False)
def metrics(request: Request) -> Response:
    """Return the metrics as Prometheus reads them."""
    found: Metrics = request.app.state.server.metrics
    return Response(generate_latest(found.registry), media_type=CONTENT_TYPE_LATEST)
