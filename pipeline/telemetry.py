"""Spans and counters through OpenTelemetry's API; they go nowhere unless a program around this one has set up its SDK.

    pip install opentelemetry-distro opentelemetry-exporter-otlp
    opentelemetry-instrument --service_name pipeline pipeline sync

Spans: `load` (one command's work on one workspace), in it `page` (a list page) and `fetch` (a run by ID), retries
included. Counters: requests, answers of 429, retries, runs landed, and seconds that loads took.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from opentelemetry import metrics, trace

from pipeline import __version__

_tracer = trace.get_tracer("extend-pipeline", __version__)
_meter = metrics.get_meter("extend-pipeline", __version__)

requests = _meter.create_counter("pipeline.requests", unit="{request}", description="HTTP requests, retries included")
rate_limited = _meter.create_counter("pipeline.rate_limited", unit="{answer}", description="Answers of 429")
retries = _meter.create_counter("pipeline.retries", unit="{request}", description="Requests made again")
runs_landed = _meter.create_counter("pipeline.runs_landed", unit="{run}", description="Runs that were new or changed")
load_seconds = _meter.create_counter("pipeline.load_seconds", unit="s", description="How long loads took")


_NOTHING: AbstractContextManager[None] = nullcontext()


def span(name: str, attributes: dict[str, str]) -> AbstractContextManager[object]:
    """Return a context manager that makes a span the current one; an error that leaves it is noted there."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return _NOTHING  # no SDK is set up: to make a span for nobody would cost more than a run's checks
    return _tracer.start_as_current_span(name, attributes=attributes)
