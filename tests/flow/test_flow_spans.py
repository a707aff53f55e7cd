"""One span per wait, with OpenTelemetry's own in-memory exporter."""

import pytest

from gts_async import DeadlineExceeded, JobSpec

SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image")


async def test_a_wait_is_one_span_with_its_transitions_as_events(exporter, gts_session):
    exporter.clear()
    job = await gts_session.submit(SPEC)
    await job
    (span,) = exporter.get_finished_spans()
    assert span.name == "wait Job"
    assert span.attributes["gts_async.work.id"] == job.id
    assert [event.name for event in span.events] == ["WORKING", "SUCCEEDED"]
    assert "Signature" not in str(span.to_json())


async def test_a_wait_that_ends_badly_says_how(exporter, gts_session):
    exporter.clear()
    job = await gts_session.submit(SPEC)
    with pytest.raises(DeadlineExceeded):
        await job.wait(deadline=1)
    (span,) = exporter.get_finished_spans()
    assert not span.status.is_ok
    assert "exception" in [event.name for event in span.events]
