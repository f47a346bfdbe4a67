"""Spans and counters through OpenTelemetry's API; they go nowhere unless a program around this one has set up its SDK.

    pip install opentelemetry-distro opentelemetry-exporter-otlp
    opentelemetry-instrument --service_name pipeline pipeline sync

Spans: `load` (one command's work on one workspace), in it `page` (a list page) and `fetch` (a run by ID), retries
included. Counters: requests, answers of 429, retries, runs landed, and seconds that loads took.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from pipeline import __version__

_NAME = "extend-pipeline"
_NOTHING: AbstractContextManager[None] = nullcontext()


class Counter:
    """One of OpenTelemetry's counters, made when it first counts for somebody."""

    def __init__(self, name: str, unit: str, description: str) -> None:
        self._told = (name, unit, description)
        self._counter: Any = None

    def add(self, amount: float, attributes: dict[str, str] | None = None) -> None:
        """Count so many more."""
        if self._counter is None:
            metrics = _api("metrics")
            if metrics is None:
                return
            self._counter = metrics.get_meter(_NAME, __version__).create_counter(*self._told)
        self._counter.add(amount, attributes)


requests = Counter("pipeline.requests", "{request}", "HTTP requests, retries included")
rate_limited = Counter("pipeline.rate_limited", "{answer}", "Answers of 429")
retries = Counter("pipeline.retries", "{request}", "Requests made again")
runs_landed = Counter("pipeline.runs_landed", "{run}", "Runs that were new or changed")
load_seconds = Counter("pipeline.load_seconds", "s", "How long loads took")


def span(name: str, attributes: dict[str, str]) -> AbstractContextManager[object]:
    """Return a context manager that makes a span the current one; an error that leaves it is noted there."""
    trace = _api("trace")
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return _NOTHING  # no SDK is set up: to make a span for nobody would cost more than a run's checks
    made: AbstractContextManager[object] = trace.get_tracer(_NAME, __version__).start_as_current_span(
        name, attributes=attributes
    )
    return made


def _api(name: str) -> Any:
    """Return a module of OpenTelemetry's API where this process has it, as it has whoever set up an SDK; else null."""
    return sys.modules.get(f"opentelemetry.{name}")
