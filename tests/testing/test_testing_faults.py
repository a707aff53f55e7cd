"""Faults as data: whom they meet, how often, and what the client makes of them."""

import httpx
import pytest

from gts_async import JobSpec, NotSent, OutcomeUnknown, RateLimited, TaskStatus, TimedOut
from gts_async.testing import Fault, faults

SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image")
REQUEST = httpx.Request("POST", "http://engine.test/api/train")


@pytest.mark.parametrize(
    ("path", "asked", "is_met"),
    [
        ("", "/anything", True),
        ("/api/train", "/api/train", True),
        ("/api/train", "/api/train/", True),
        ("/api/train/", "/base/api/train", True),
        ("/api/train", "/api/trainer", False),
        ("/api/train", "/api/train/more", False),
    ],
)
def test_a_fault_meets_requests_whose_path_ends_so(path, asked, is_met):
    assert faults.refused(path).meets("POST", asked) is is_met


def test_a_fault_meets_as_often_as_told():
    fault = faults.refused("/train", times=2)
    assert [fault.meets("POST", path) for path in ("/train", "/other", "/train", "/train")] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("fault", "error", "is_after"),
    [
        (faults.refused(), httpx.ConnectError, False),
        (faults.cut(), httpx.ReadError, True),
        (faults.cut(is_after=False), httpx.ReadError, False),
        (faults.silent(), httpx.ReadTimeout, True),
    ],
)
def test_what_a_fault_raises_is_what_httpx_would(fault, error, is_after):
    with pytest.raises(error) as caught:
        fault.outcome(REQUEST)
    assert caught.value.request is REQUEST
    assert fault.is_after is is_after


def test_a_status_comes_with_its_body_and_headers():
    response = faults.status(503, b"<html>", retry_after="7").outcome(REQUEST)
    assert (response.status_code, response.content, response.headers["retry-after"]) == (503, b"<html>", "7")


def test_a_fault_of_ones_own_is_a_function():
    def teapot(request):
        return httpx.Response(418)

    assert Fault(teapot).outcome(REQUEST).status_code == 418


async def test_a_submission_that_was_refused_is_sent_again(gts_session, gts_faults, gts_clock):
    gts_faults.append(faults.refused(times=2))
    async with gts_session as session:
        job = await session.submit(SPEC)
        assert (await job.status()).status.name == "WORKING"
    assert gts_clock.now() > 0


async def test_a_service_that_is_never_there_is_not_sent(gts_session, gts_faults):
    gts_faults.append(faults.refused(times=100))
    with pytest.raises(NotSent):
        await gts_session.submit(SPEC)


@pytest.mark.parametrize(("fault", "error"), [(faults.cut, OutcomeUnknown), (faults.silent, TimedOut)])
async def test_a_submission_whose_answer_is_lost_may_have_happened(gts_session, gts_faults, fault, error):
    gts_faults.append(fault(is_after=False))
    with pytest.raises(error) as caught:
        await gts_session.submit(SPEC)
    assert caught.value.intent.spec.image_path == SPEC.image_path
    assert await gts_session.list_jobs() == []
    gts_faults.append(fault(is_after=True))
    job = await gts_session.submit(SPEC)
    assert [listing.id for listing in await gts_session.list_jobs()] == [job.id]


async def test_a_server_that_asks_for_fewer_requests_is_waited_for(gts_session, gts_faults, gts_clock):
    gts_faults.append(faults.status(429, retry_after="7"))
    await gts_session.submit(SPEC)
    assert gts_clock.now() == 7.0
    gts_faults.append(faults.status(429, retry_after="3600"))
    with pytest.raises(RateLimited) as caught:
        await gts_session.submit(SPEC)
    assert caught.value.retry_after == 3600.0


async def test_a_gateway_that_comes_and_goes_is_told_and_then_forgotten(gts_session, gts_faults):
    task = await gts_session.create_task("tnews", task_type="classification", engine_type="qiankunding")
    gts_faults.append(faults.status(502, b"<html>Bad Gateway", "/api/check_task_status", times=20))
    with pytest.raises(Exception, match="502"):
        await task.status()
    gts_faults.clear()
    assert (await task.status()).status is TaskStatus.INITIALIZED
