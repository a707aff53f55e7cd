"""One OpenTelemetry span per wait, its transitions as events, if OpenTelemetry is installed; else nothing.

Looks get no spans of their own: a wait of hours would flood the trace.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gts_async._flow.watch import Watch


@functools.cache
def _trace() -> Any:
    """Give `opentelemetry.trace`, or None; looked for once, at the first wait."""
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace


@contextmanager
def wait_span(watch: "Watch[Any]") -> Iterator[None]:
    """Span a wait: its work, its transitions with their times, and how it ended."""
    trace = _trace()
    if trace is None:
        yield
        return
    kind = type(watch.handle).__name__
    attributes = {"gts_async.work.kind": kind, "gts_async.work.id": watch.handle.id}
    with trace.get_tracer("gts_async").start_as_current_span(f"wait {kind}", attributes=attributes) as span:
        try:
            yield
        finally:
            for change in watch.history:
                span.add_event(
                    change.status.name,
                    {"gts_async.elapsed": change.elapsed, "gts_async.is_synthesized": change.is_synthesized},
                    timestamp=int(change.observed_at.timestamp() * 1e9),
                )
