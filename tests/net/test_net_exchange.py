"""The Exchange over httpx's MockTransport: what is tried again, what is raised, what goes out."""

import gzip
import zlib

import httpx
import pytest

from gts_async import (
    Limits,
    MisuseError,
    NotFound,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    RetryPolicy,
    ServerFailed,
    TimedOut,
    Timeouts,
    Unauthorized,
    UnexpectedAnswer,
)
from gts_async._net.config import BaseURL
from gts_async._net.exchange import Exchange
from gts_async._net.secret import Credential
from gts_async._net.sending import Line
from gts_async.testing import FakeClock
from gts_async.wire import Call, Request, decode


def read(answer):
    if answer.status == 401:
        raise Unauthorized(call="look", code=401, message=answer.text)
    if answer.status == 404:
        raise NotFound(call="look", code=404, message=answer.text)
    if answer.status == 429:
        raise RateLimited(call="look", code=429, message=answer.text)
    if answer.status == 500:
        raise ServerFailed("the engine's own 500", status=500)
    return decode(answer.body, dict[str, int], call="look")


LOOK = Call("look", Request.json("POST", "/look", {"id": 1}), read, is_repeatable=True)
CREATE = Call("create", Request.json("POST", "/create", {}), read, is_repeatable=False)
KNOWS_500 = Call("serve", Request("POST", "/serve"), read, is_repeatable=True, answers_with=frozenset({500}))


class Script:
    """An httpx handler that plays what it is given: responses, or exceptions to raise; and keeps the requests."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.requests = []

    async def __call__(self, request):
        await request.aread()
        self.requests.append(request)
        step = self.steps.pop(0)
        if isinstance(step, type) and issubclass(step, Exception):
            raise step("it broke", request=request)
        if isinstance(step, Exception):
            raise step
        return step


def ok(**document):
    return httpx.Response(200, json=document)


def exchange(script, *, credential=None, **options):
    options.setdefault("clock", FakeClock())
    client = httpx.AsyncClient(transport=httpx.MockTransport(script), trust_env=False)

    async def connect():
        return Line(client, BaseURL.parse("http://service.test/base", "engine"), credential or Credential(None))

    return Exchange(connect, chance=lambda: 0.5, **options)


NOT_SENT = [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout]
UNKNOWN = [httpx.ReadError, httpx.ReadTimeout, httpx.WriteError, httpx.RemoteProtocolError]


@pytest.mark.parametrize("fault", NOT_SENT)
@pytest.mark.parametrize("call", [LOOK, CREATE])
async def test_what_was_surely_not_sent_is_sent_again(fault, call):
    script = Script(fault, fault, ok(x=1))
    assert await exchange(script).send(call) == {"x": 1}
    assert len(script.requests) == 3


@pytest.mark.parametrize("fault", UNKNOWN)
async def test_a_repeatable_call_whose_answer_was_lost_is_sent_again(fault):
    script = Script(fault, ok(x=1))
    assert await exchange(script).send(LOOK) == {"x": 1}


@pytest.mark.parametrize(
    "fault", [*UNKNOWN, httpx.Response(500), httpx.Response(502, text="<html>"), httpx.Response(503)]
)
async def test_a_create_whose_answer_was_lost_is_never_sent_again(fault):
    script = Script(fault, ok(x=1))
    with pytest.raises(OutcomeUnknown) as caught:
        await exchange(script).send(CREATE)
    assert len(script.requests) == len(caught.value.attempts) == 1


async def test_a_create_whose_answer_was_cut_may_have_happened():
    script = Script(httpx.Response(200, content=b'{"x": '))
    with pytest.raises(OutcomeUnknown) as caught:
        await exchange(script).send(CREATE)
    assert isinstance(caught.value.__cause__, UnexpectedAnswer)


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504])
async def test_a_passing_status_is_another_try_for_a_repeatable_call(status):
    script = Script(httpx.Response(status), ok(x=1))
    assert await exchange(script).send(LOOK) == {"x": 1}


async def test_the_last_failure_is_raised_with_every_attempt():
    script = Script(*[httpx.Response(502, text="<html>\x1b[31mbad gateway")] * 4)
    with pytest.raises(ServerFailed) as caught:
        await exchange(script).send(LOOK)
    error = caught.value
    assert (error.status, error.call, error.url) == (502, "look", "http://service.test/base/look")
    assert [(a.status, a.delay) for a in error.attempts] == [(502, 0.125), (502, 0.25), (502, 0.5), (502, None)]
    assert [a.began for a in error.attempts] == [0.0, 0.125, 0.375, 0.875]
    assert "\x1b" not in str(error)


async def test_a_500_that_is_the_services_own_answer_is_read_and_never_tried_again():
    script = Script(httpx.Response(500))
    with pytest.raises(ServerFailed, match="the engine's own 500"):
        await exchange(script).send(KNOWS_500)
    assert len(script.requests) == 1


async def test_a_refusal_is_raised_at_once():
    script = Script(httpx.Response(404, text="nothing here"))
    with pytest.raises(NotFound) as caught:
        await exchange(script).send(LOOK)
    assert (caught.value.code, caught.value.message) == (404, "nothing here")


async def test_too_many_requests_is_waited_out_for_any_call():
    clock = FakeClock()
    script = Script(httpx.Response(429, headers={"retry-after": "7"}), ok(x=1))
    assert await exchange(script, clock=clock).send(CREATE) == {"x": 1}
    assert clock.now() == 7.0


async def test_retry_after_may_be_a_date():
    clock = FakeClock()
    script = Script(httpx.Response(429, headers={"retry-after": "Mon, 01 Jan 2024 00:00:30 GMT"}), ok(x=1))
    await exchange(script, clock=clock).send(LOOK)
    assert clock.now() == 30.0


async def test_a_retry_after_beyond_the_policy_is_raised_with_what_the_server_asked():
    script = Script(httpx.Response(429, headers={"retry-after": "3600"}))
    with pytest.raises(RateLimited) as caught:
        await exchange(script).send(LOOK)
    assert caught.value.retry_after == 3600.0


@pytest.mark.parametrize("value", ["", "soon", "-5", "1e9", "1.", "٣", "Mon, 01 Jan 2024 00:00:30 +9999999999999"])
async def test_a_nonsensical_retry_after_does_not_count(value):
    script = Script(httpx.Response(503, headers=[(b"retry-after", value.encode())]), ok(x=1))
    clock = FakeClock()
    await exchange(script, clock=clock).send(LOOK)
    assert clock.now() == 0.125


async def test_no_wait_goes_past_the_calls_time():
    script = Script(*[httpx.Response(503, headers={"retry-after": "9"})] * 4)
    clock = FakeClock()
    with pytest.raises(ServerFailed):
        await exchange(script, clock=clock).send(LOOK, timeout=10)
    assert clock.now() == 9.0
    assert len(script.requests) == 2


async def test_the_whole_call_is_bounded_however_the_server_drips():
    clock = FakeClock()

    class Drip(httpx.AsyncByteStream):
        async def __aiter__(self):
            while True:
                await clock.sleep(1)
                yield b" "

    script = Script(httpx.Response(200, stream=Drip()))
    with pytest.raises(TimedOut) as caught:
        await exchange(script, clock=clock, timeouts=Timeouts(total=5)).send(CREATE)
    assert isinstance(caught.value, TimeoutError)
    assert 5 <= clock.now() <= 5.1


async def test_an_empty_budget_forbids_another_try():
    script = Script(*[httpx.Response(503)] * 8)
    sender = exchange(script, retry=RetryPolicy(budget=28))
    for _ in range(2):
        with pytest.raises(ServerFailed):
            await sender.send(LOOK)
    assert len(script.requests) == 4


async def test_the_token_goes_out_once_and_a_callable_is_asked_again_after_a_401():
    tokens = iter(["old", "new"])

    async def ask():
        return next(tokens)

    script = Script(httpx.Response(401, text="Unauthorized"), ok(x=1))
    await exchange(script, credential=Credential(ask)).send(CREATE)
    assert [r.headers["authorization"] for r in script.requests] == ["Bearer old", "Bearer new"]


@pytest.mark.parametrize("is_callable", [True, False])
async def test_a_401_that_stays_is_raised(is_callable):
    async def ask():
        return "same"

    script = Script(httpx.Response(401), httpx.Response(401))
    with pytest.raises(Unauthorized):
        await exchange(script, credential=Credential(ask if is_callable else "same")).send(LOOK)
    assert len(script.requests) == (2 if is_callable else 1)


async def test_a_request_has_our_headers_and_no_compression_is_asked_for():
    script = Script(ok())
    await exchange(script).send(LOOK)
    request = script.requests[0]
    assert str(request.url) == "http://service.test/base/look"
    assert request.content == b'{"id":1}'
    assert request.headers["accept-encoding"] == "identity"
    assert "authorization" not in request.headers
    assert "cookie" not in request.headers


async def test_a_redirect_is_not_followed():
    script = Script(httpx.Response(307, headers={"location": "http://elsewhere.test/look"}))
    with pytest.raises(UnexpectedAnswer):
        await exchange(script).send(LOOK)
    assert len(script.requests) == 1


class Raw(httpx.AsyncByteStream):
    def __init__(self, *pieces):
        self.pieces = pieces

    async def __aiter__(self):
        for piece in self.pieces:
            yield piece


def bomb():
    return gzip.compress(b" " * 50_000_000)


@pytest.mark.parametrize(
    "response",
    [
        lambda: httpx.Response(200, stream=Raw(*[b"x" * 1000] * 3)),
        lambda: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Raw(gzip.compress(b" " * 5000))),
        lambda: httpx.Response(200, headers={"content-encoding": "gzip, gzip"}, stream=Raw(gzip.compress(b" "))),
        lambda: httpx.Response(200, headers={"content-encoding": "br"}, stream=Raw(b"x")),
        lambda: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Raw(b"not gzip")),
    ],
)
async def test_an_answer_too_large_or_strangely_coded_is_refused(response):
    with pytest.raises(UnexpectedAnswer):
        await exchange(Script(response()), limits=Limits(max_answer_bytes=2000)).send(LOOK)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
async def test_a_coding_that_was_not_asked_for_is_undone(pack):
    name = "gzip" if pack is gzip.compress else "deflate"
    response = httpx.Response(200, headers={"content-encoding": name}, stream=Raw(pack(b'{"x": 1}')))
    assert await exchange(Script(response)).send(LOOK) == {"x": 1}


@pytest.mark.parametrize(
    "path", ["/a/../b", "http://elsewhere.test/", "//elsewhere.test/", "relative", "/x?y=1", "/./x"]
)
async def test_no_path_leaves_the_base_url(path):
    with pytest.raises(MisuseError):
        await exchange(Script(ok())).send(Call("odd", Request("GET", path), read, is_repeatable=True))


async def test_a_query_is_sent_encoded():
    script = Script(ok())
    call = Call("list", Request("GET", "/list", query=(("job_id", "a&b=c d"),)), read, is_repeatable=True)
    await exchange(script).send(call)
    assert script.requests[0].url.raw_path == b"/base/list?job_id=a%26b%3Dc+d"


async def test_an_unconnectable_service_is_not_sent_with_the_reason():
    script = Script(*[httpx.ConnectError] * 4)
    with pytest.raises(NotSent, match="it broke") as caught:
        await exchange(script).send(LOOK)
    assert len(caught.value.attempts) == 4
