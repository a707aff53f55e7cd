"""What the Exchange makes of time, tokens, closing and the unknown: over httpx's MockTransport and a fake clock."""

import asyncio
import contextlib
import io
import logging
import traceback

import httpx
import pytest
from rich.console import Console
from rich.traceback import Traceback

from gts_async import (
    InvalidArgument,
    MisuseError,
    NotFound,
    NotSent,
    OutcomeUnknown,
    RetryPolicy,
    ServerFailed,
    TimedOut,
    Timeouts,
    Unauthorized,
    UnexpectedAnswer,
    WrongType,
)
from gts_async._net.config import BaseURL
from gts_async._net.exchange import Exchange
from gts_async._net.retry import RetryBudget
from gts_async._net.secret import Credential
from gts_async._net.sending import Line
from gts_async.testing import FakeClock
from gts_async.wire import Call, Multipart, Pace, Request, decode

TOKEN = "TOPSECRET" * 20


def read(answer):
    if answer.status == 401:
        raise Unauthorized(call="look", code=401, message=answer.text)
    if answer.status == 404:
        raise NotFound(call="look", code=404, message=answer.text)
    return decode(answer.body, dict[str, int], call="look")


LOOK = Call("look", Request.json("POST", "/look", {"id": 1}), read, is_repeatable=True)
CREATE = Call("create", Request.json("POST", "/create", {}), read, is_repeatable=False)
LOAD = Call("load", Request("POST", "/load"), read, is_repeatable=True, pace=Pace.LOAD)


class Handler:
    """Plays responses, exceptions to raise, or awaitables to wait for; the last one for ever. Keeps the requests."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.requests = []

    async def __call__(self, request):
        self.requests.append(request)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, type) and issubclass(step, Exception):
            raise step("it broke", request=request)
        return await step(request) if callable(step) else step


def ok(request=None):
    async def answer(request):
        return httpx.Response(200, json={"x": 1})

    return answer


def status(code, **options):
    async def answer(request):
        return httpx.Response(code, **options)

    return answer


async def never(request):
    await asyncio.Event().wait()


def exchange(handler, *, credential=None, **options):
    options.setdefault("clock", FakeClock())
    transport = handler if isinstance(handler, httpx.AsyncBaseTransport) else httpx.MockTransport(handler)
    client = httpx.AsyncClient(transport=transport, trust_env=False)

    async def connect():
        return Line(client, BaseURL.parse("http://service.test/base", "engine"), credential or Credential(None))

    return Exchange(connect, chance=lambda: 0.5, **options)


# Time


async def test_waiting_for_a_turn_counts_and_ends_as_not_sent():
    clock, gate = FakeClock(), asyncio.Semaphore(0)
    handler = Handler(ok())
    with pytest.raises(NotSent, match="in flight") as caught:
        await exchange(handler, clock=clock, in_flight=gate).send(CREATE, timeout=10)
    assert clock.now() == 10.0
    assert handler.requests == []
    assert caught.value.url == "http://service.test/base/create"
    assert len(caught.value.attempts) == 1
    gate.release()
    assert not gate.locked()


async def test_the_time_spent_waiting_for_a_turn_is_gone():
    clock, gate = FakeClock(), asyncio.Semaphore(0)
    asyncio.get_running_loop().create_task(clock.sleep(4)).add_done_callback(lambda _: gate.release())
    with pytest.raises(TimedOut):
        await exchange(Handler(never), clock=clock, in_flight=gate).send(LOOK, timeout=10)
    assert 10 <= clock.now() <= 10.1


async def test_calls_get_their_turn_in_order():
    gate, order = asyncio.Semaphore(1), []
    sender = exchange(Handler(ok()), in_flight=gate)

    async def ask(number):
        await sender.send(LOOK, timeout=10)
        order.append(number)

    await asyncio.gather(*map(ask, range(20)))
    assert order == list(range(20))


async def test_cancelling_at_any_turn_gives_the_turn_back(cancelled_after):
    gate = asyncio.Semaphore(1)
    sender = exchange(Handler(ok()), in_flight=gate)
    for turns in range(41):
        held = asyncio.create_task(sender.send(LOOK))
        await cancelled_after(turns, lambda: sender.send(LOOK))
        await held
        assert not gate.locked()
        assert await sender.send(LOOK) == {"x": 1}


@pytest.mark.parametrize(("timeout", "took"), [(None, 600.0), (1200.0, 1200.0), (7.0, 7.0)])
async def test_a_timeout_for_a_load_takes_the_place_of_its_silence_too(timeout, took):
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            await clock.sleep(request.extensions["timeout"]["read"])
            raise httpx.ReadTimeout("silence", request=request)

    clock = FakeClock()
    with pytest.raises(TimedOut):
        await exchange(Silent(), clock=clock).send(LOAD, timeout=timeout, max_attempts=1)
    assert clock.now() == took


@pytest.mark.parametrize(("timeout", "error"), [(0, InvalidArgument), (-1, InvalidArgument), ("5", WrongType)])
async def test_a_timeout_that_cannot_be_is_refused_before_anything_is_sent(timeout, error):
    handler = Handler(ok())
    with pytest.raises(error, match="timeout"):
        await exchange(handler).send(LOOK, timeout=timeout)
    assert handler.requests == []


async def test_a_try_for_which_there_is_no_time_left_costs_no_budget():
    budget = RetryBudget(500)
    with pytest.raises(ServerFailed):
        await exchange(Handler(status(503, headers={"retry-after": "30"})), budget=budget).send(LOOK, timeout=10)
    assert budget.left == 500


# What was surely not sent, and what may have been


class Traced(httpx.AsyncBaseTransport):
    """Tells how far it got, as httpcore does, then waits for ever or raises."""

    def __init__(self, *events, error=None):
        self.events = events
        self.error = error
        self.tries = 0

    async def handle_async_request(self, request):
        self.tries += 1
        for event in self.events:
            await request.extensions["trace"](event, {})
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()


CONNECTING = ["connection.connect_tcp.started", "connection.connect_tcp.complete", "connection.start_tls.started"]
SENDING = [*CONNECTING, "http11.send_request_headers.started"]
SENT = [*SENDING, "http11.send_request_headers.complete"]


@pytest.mark.parametrize(
    ("events", "error"),
    [(CONNECTING[:1], NotSent), (CONNECTING, NotSent), (SENDING, TimedOut), (SENDING[3:], TimedOut), ([], TimedOut)],
    ids=["connecting", "in TLS", "sending", "sending on an open connection", "who knows"],
)
async def test_a_call_whose_time_runs_out_was_sent_if_its_first_byte_may_have_been(events, error):
    with pytest.raises(error) as caught:
        await exchange(Traced(*events)).send(CREATE, timeout=10)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("error", "events", "raised", "tries"),
    [
        (httpx.ProxyError("407"), [], NotSent, 4),
        (httpx.ConnectError("refused"), [], NotSent, 4),
        (httpx.UnsupportedProtocol("ftp"), [], NotSent, 1),
        (httpx.LocalProtocolError("Illegal header value b'TOPSECRET'"), [], NotSent, 1),
        (
            httpx.LocalProtocolError("Too little data"),
            [*SENDING, "http11.send_request_headers.complete"],
            OutcomeUnknown,
            1,
        ),
        (httpx.WriteError("reset"), [], OutcomeUnknown, 1),
        (httpx.WriteTimeout("slow"), [], TimedOut, 1),
        (httpx.CloseError("odd"), [], OutcomeUnknown, 1),
        (httpx.DecodingError("odd"), [], OutcomeUnknown, 1),
        (ConnectionResetError("reset"), [], OutcomeUnknown, 1),
    ],
)
async def test_a_create_is_sent_again_only_after_what_cannot_have_arrived(error, events, raised, tries):
    transport = Traced(*events, error=error)
    with pytest.raises(raised) as caught:
        await exchange(transport).send(CREATE)
    assert type(caught.value) is raised
    assert transport.tries == tries
    assert "TOPSECRET" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "answer",
    [
        status(200, text="<html>please log in"),
        status(200, json={"x": "not a number"}),
        status(200, content=b""),
        status(201, content=b'{"x": '),
        status(200, content=b"", headers={"content-encoding": "br"}, stream=httpx.ByteStream(b"??")),
    ],
)
async def test_a_create_whose_good_answer_cannot_be_read_may_have_happened(answer):
    handler = Handler(answer)
    with pytest.raises(OutcomeUnknown, match="may have been carried out") as caught:
        await exchange(handler).send(CREATE)
    assert isinstance(caught.value.__cause__, UnexpectedAnswer)
    assert len(handler.requests) == 1


@pytest.mark.parametrize("code", [302, 400])
async def test_a_create_that_was_turned_away_did_not_happen(code):
    with pytest.raises(UnexpectedAnswer):
        await exchange(Handler(status(code, text="<html>"))).send(CREATE)


async def test_a_redirect_is_not_followed_even_by_a_client_that_would():
    handler = Handler(status(307, headers={"location": "http://elsewhere.test/create"}))
    client = httpx.AsyncClient(transport=httpx.MockTransport(handler), follow_redirects=True)

    async def connect():
        return Line(client, BaseURL.parse("http://service.test", "engine"))

    with pytest.raises(UnexpectedAnswer):
        await Exchange(connect, clock=FakeClock()).send(CREATE)
    assert len(handler.requests) == 1


# Tokens


async def test_many_calls_at_once_ask_for_one_token():
    asked = 0

    async def ask():
        nonlocal asked
        asked += 1
        await clock.sleep(1)
        return f"token-{asked}"

    clock = FakeClock()
    sender = exchange(Handler(ok()), clock=clock, credential=Credential(ask))
    await asyncio.gather(*(sender.send(LOOK) for _ in range(100)))
    assert asked == 1


async def test_many_refused_calls_ask_for_one_fresh_token():
    tokens = iter(["old", "new", "newer"])
    answered = []

    async def ask():
        await clock.sleep(1)
        return next(tokens)

    async def answer(request):
        await clock.sleep(len(answered) % 3)
        answered.append(request.headers["authorization"])
        is_good = request.headers["authorization"] == "Bearer new"
        return httpx.Response(200, json={"x": 1}) if is_good else httpx.Response(401)

    clock = FakeClock()
    sender = exchange(Handler(answer), clock=clock, credential=Credential(ask))
    await asyncio.gather(*(sender.send(LOOK) for _ in range(100)))
    assert next(tokens) == "newer"
    assert len(answered) == 200


async def test_whoever_asks_for_the_token_may_be_cancelled_without_harm(cancelled_after):
    async def ask():
        for _ in range(5):
            await asyncio.sleep(0)
        return "token"

    for turns in range(20):
        credential = Credential(ask)
        sender = exchange(Handler(ok()), credential=credential)
        other = []

        async def both(sender=sender, other=other):
            other.append(asyncio.create_task(sender.send(LOOK)))
            await sender.send(LOOK)

        await cancelled_after(turns, both)
        assert [await task for task in other] in ([], [{"x": 1}])
        assert await sender.send(LOOK) == {"x": 1}


async def test_a_token_that_is_never_given_is_waited_for_within_the_calls_time():
    async def ask():
        await asyncio.Event().wait()

    clock, handler = FakeClock(), Handler(ok())
    with pytest.raises(NotSent, match="token") as caught:
        await exchange(handler, clock=clock, credential=Credential(ask)).send(CREATE, timeout=10)
    assert 10 <= clock.now() <= 10.1
    assert handler.requests == []
    assert len(caught.value.attempts) == 1


@pytest.mark.parametrize("error", [OSError("login.test is down"), TimeoutError(), KeyError("token"), TimedOut("login")])
async def test_a_callable_that_fails_is_asked_again_and_then_it_was_not_sent(error):
    async def ask():
        answers.append(1)
        raise error

    answers, handler = [], Handler(ok())
    with pytest.raises(NotSent, match=type(error).__name__) as caught:
        await exchange(handler, credential=Credential(ask)).send(CREATE)
    assert caught.value.__cause__ is error
    assert len(answers) == 4
    assert handler.requests == []


@pytest.mark.parametrize(
    ("given", "error"), [("", InvalidArgument), (5, WrongType), ("two words", InvalidArgument), (None, WrongType)]
)
async def test_a_callable_that_gives_no_token_is_told_at_once(given, error):
    async def ask():
        answers.append(1)
        return given

    answers = []
    with pytest.raises(error, match="callable"):
        await exchange(Handler(ok()), credential=Credential(ask)).send(LOOK)
    assert answers == [1]


async def test_a_callable_that_is_not_async_is_told_so():
    with pytest.raises(WrongType, match="async"):
        await exchange(Handler(ok()), credential=Credential(lambda: "token")).send(LOOK)


# Closing


async def test_a_session_closed_between_two_tries_ends_the_call():
    is_closed = False

    def guard():
        if is_closed:
            raise MisuseError("the session is closed; open another")

    async def answer(request):
        nonlocal is_closed
        is_closed = True
        return httpx.Response(503)

    handler = Handler(answer)
    with pytest.raises(MisuseError):
        await exchange(handler, guard=guard).send(LOOK)
    assert len(handler.requests) == 1


# Bodies


class Body:
    content_type = "multipart/form-data; boundary=b"
    length = 3

    def __init__(self, *, error=None):
        self.error = error
        self.opened = self.closed = 0

    async def open(self, form):
        self.opened += 1
        return self

    async def chunks(self):
        yield b"a"
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        yield b"bc"

    async def aclose(self):
        await asyncio.sleep(0)
        self.closed += 1


UPLOAD = Call("upload", Request("POST", "/upload", body=Multipart((), ())), read, is_repeatable=True)


async def taken(request):
    assert await request.aread() == b"abc"
    return httpx.Response(200, json={"x": 1})


async def test_a_body_of_files_is_opened_and_closed_for_every_try():
    async def cut(request):
        await request.aread()
        raise httpx.ReadError("cut", request=request)

    body = Body()
    assert await exchange(Handler(cut, taken)).send(UPLOAD, open_body=body.open) == {"x": 1}
    assert (body.opened, body.closed) == (2, 2)


async def test_a_body_is_closed_wherever_its_call_is_cancelled(cancelled_after):
    for turns in range(30):
        body = Body()
        await cancelled_after(turns, lambda body=body: exchange(Handler(taken)).send(UPLOAD, open_body=body.open))
        assert body.opened - body.closed in (0, 1)
        assert body.opened == body.closed or body.opened == 1


# Events


async def test_every_call_tells_how_it_ended():
    events = []
    sender = exchange(
        Handler(status(503), ok(), status(404), status(503)),
        retry=RetryPolicy(max_attempts=2),
        on_event=lambda event: events.append((event.kind, event.attempt, event.status)),
    )
    await sender.send(LOOK)
    with pytest.raises(NotFound):
        await sender.send(LOOK)
    with pytest.raises(ServerFailed):
        await sender.send(LOOK)
    assert events == [
        ("tried again", 1, 503),
        ("answered", 2, 200),
        ("answered", 1, 404),
        ("tried again", 1, 503),
        ("gave up", 2, 503),
    ]


async def test_a_hook_that_fails_loses_no_answer(caplog):
    def hook(event):
        raise KeyError("the hook's own fault")

    assert await exchange(Handler(ok()), on_event=hook).send(CREATE) == {"x": 1}
    assert [record.levelname for record in caplog.records] == ["ERROR"]


# Secrets


class Careless(httpx.AsyncBaseTransport):
    """Keeps the raw headers in its locals, as httpcore and h11 do while they write."""

    def __init__(self, error=None):
        self.error = error

    async def handle_async_request(self, request):
        raw = list(request.headers.raw)
        if self.error is not None:
            try:
                raise OSError("cause") from ValueError("its own cause")
            except OSError as cause:
                raise self.error from cause
        await asyncio.Event().wait()
        return raw


def shown(error):
    """Give all that printers of tracebacks can show, locals included."""
    # The first frame is the test's own, which knows the token.
    error = error.with_traceback(error.__traceback__.tb_next)
    lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    return "".join(lines) + repr(error) + str(error) + repr(vars(error))


async def token():
    return TOKEN


@pytest.mark.parametrize("credential", [TOKEN, token])
@pytest.mark.parametrize("error", [httpx.WriteTimeout("slow"), httpx.ReadError("cut"), httpx.ConnectError("refused")])
async def test_no_traceback_shows_the_token_even_with_its_locals(error, credential):
    with pytest.raises((NotSent, OutcomeUnknown)) as caught:
        await exchange(Careless(error), credential=Credential(credential)).send(CREATE, max_attempts=1)
    text = shown(caught.value)
    assert "this = " in text
    assert "TOPSECRET" not in text


async def test_no_pretty_traceback_shows_the_token_either():
    async def open_body(form):
        raise OSError("a fault of the sender's")

    with pytest.raises(NotSent) as caught:
        await exchange(Handler(ok()), credential=Credential(TOKEN)).send(UPLOAD, max_attempts=1, open_body=open_body)
    error, printed = caught.value, io.StringIO()
    view = Traceback.from_exception(type(error), error, error.__traceback__.tb_next, show_locals=True)
    Console(file=printed, width=250).print(view)
    assert "this = " in printed.getvalue()
    assert "TOPSECRET" not in printed.getvalue()


async def test_a_deadline_shows_no_token_either():
    with pytest.raises(TimedOut) as caught:
        await exchange(Careless(), credential=Credential(TOKEN)).send(CREATE, timeout=5)
    assert "TOPSECRET" not in shown(caught.value)


async def test_a_cancellation_shows_no_token_either():
    async with asyncio.timeout(30):
        task = asyncio.create_task(exchange(Careless(), credential=Credential(TOKEN)).send(CREATE))
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert "TOPSECRET" not in shown(caught.value)


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_an_error_that_the_caller_was_handling_keeps_its_traceback(is_cancelled):
    sender = exchange(Careless(None if is_cancelled else httpx.ReadError("cut")), credential=Credential(TOKEN))

    async def clean_up():
        try:
            raise KeyError("the caller's own")
        except KeyError:
            with contextlib.suppress(asyncio.CancelledError, OutcomeUnknown):
                await sender.send(CREATE)
            raise

    task = asyncio.create_task(clean_up())
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(KeyError) as caught:
        await task
    assert 'raise KeyError("the caller\'s own")' in "".join(traceback.format_exception(caught.value))


async def test_a_body_that_cannot_be_opened_shows_no_token_either():
    async def open_body(form):
        raise InvalidArgument("files", "cannot be opened")

    with pytest.raises(InvalidArgument) as caught:
        await exchange(Handler(ok()), credential=Credential(TOKEN)).send(UPLOAD, open_body=open_body)
    assert "TOPSECRET" not in shown(caught.value)


async def test_no_log_shows_the_token(caplog):
    caplog.set_level(logging.DEBUG)
    sender = exchange(Handler(status(503, text="no"), ok()), credential=Credential(TOKEN))
    await sender.send(LOOK)
    assert "look: answered" in caplog.text
    assert "TOPSECRET" not in caplog.text


def test_timeouts_bound_what_they_say():
    timeouts = Timeouts()
    assert timeouts.bounds(Pace.ORDINARY) == (30.0, 60.0)
    assert timeouts.bounds(Pace.LOAD) == (600.0, 600.0)
    assert timeouts.bounds(Pace.TRANSFER) == (30.0, None)
