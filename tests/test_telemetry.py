"""OpenTelemetry: what a program that has set up its SDK sees of a load, and that nothing happens without one."""

import subprocess
import sys
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pipeline.kinds import BY_OBJECT
from pipeline.lake import LakeFiles
from pipeline.sandbox.faults import Faults
from pipeline.sandbox.server import serve
from pipeline.sync import SyncOptions, run_sync
from tests.conftest import connect
from tests.worlds import make_squeezed_world

KINDS = (BY_OBJECT["classify_run"], BY_OBJECT["workflow_run"])


def counts(reader: InMemoryMetricReader) -> dict[str, float]:
    data: Any = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: sum(point.value for point in metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_a_sync_is_a_load_span_with_its_pages_and_fetches_in_it_and_the_counters_are_the_loads(
    lake: LakeFiles,
) -> None:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(tracing)
    metrics.set_meter_provider(MeterProvider([reader]))
    before = counts(reader)
    world = make_squeezed_world(seed=11, runs=600)
    with serve(world, faults=Faults(0.1, ("500", "429_ms"), seed=3)) as server:
        (outcome,) = run_sync(lake, [connect(server)], SyncOptions(qps=5_000, kinds=KINDS))
        received, limited = server.requests, server.rate_limited
    load = outcome.load
    assert load is not None
    spans: tuple[ReadableSpan, ...] = exporter.get_finished_spans()
    (whole,) = [span for span in spans if span.name == "load"]
    assert whole.attributes == {"load_id": load.load_id, "workspace_id": ""}
    inner = [span for span in spans if span.name in ("page", "fetch")]
    assert whole.context is not None
    assert {span.parent.span_id for span in inner if span.parent} == {whole.context.span_id}
    paths = [span.attributes["path"] for span in spans if span.name == "page" and span.attributes]
    assert {path: paths.count(path) for path in paths} == {kind.path: outcome.kinds[kind].pages for kind in KINDS}
    fetched = {span.attributes["run_id"] for span in spans if span.name == "fetch" and span.attributes}
    assert len(fetched) == sum(outcome.kinds[kind].by_id for kind in KINDS)
    assert not any("sandbox" in str(span.attributes) for span in spans)  # the key is nowhere
    after = {name: value - before.get(name, 0) for name, value in counts(reader).items()}
    assert after["pipeline.requests"] == load.requests == received
    assert after["pipeline.rate_limited"] == load.rate_limited == limited > 0
    assert after["pipeline.retries"] == load.retries > 0
    assert after["pipeline.runs_landed"] == load.landed
    assert after["pipeline.load_seconds"] == load.seconds


def test_without_an_sdk_nothing_of_it_is_imported_or_printed() -> None:
    code = (
        "import sys\nfrom pipeline import telemetry\n"
        "with telemetry.span('load', {}): telemetry.requests.add(1)\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
