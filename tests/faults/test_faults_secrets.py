"""Secrets: after no fault does anything that can be shown hold the token, or what a signed URL is signed with."""

import asyncio
import errno
import gzip
import html
import io
import json
import logging
import pickle
import pprint
import resource
import signal
import socket
import sys
import traceback
import types
import warnings
import zipfile
from urllib.parse import quote

import httpx
import pytest
import rich.pretty
import rich.traceback

from gts_async import (
    AsyncSession,
    DeadlineExceeded,
    FileError,
    FileMissing,
    GtsAsyncError,
    InvalidArgument,
    JobSpec,
    Limits,
    MisuseError,
    NotSent,
    OutcomeUnknown,
    RetryPolicy,
    Timeouts,
    TransportError,
    Unauthorized,
    UnsafeURL,
    WorkFailed,
    WorkLost,
    WorkStalled,
    WorkStopped,
)
from gts_async.__main__ import main
from gts_async._checkpoint import Checkpoint
from gts_async._files.address import HERE
from gts_async._files.download import MinimumSpeed, download
from gts_async.callbacks import receiver
from gts_async.sxwl.values import JobInfo, JobStatus
from gts_async.testing import ChaosServer, FakeClock, chaos
from tests.steady_loop import LoopClock

TOKEN = "HEADmark0123/+=~<&>MIDmark4567%TAILmark89"
BEARER = f"Bearer {TOKEN}"
QUERY = (
    "Expires=1999999999&OSSAccessKeyId=LTAIKEYmark&Signature=SIGNmark%2BAB%2FEND1mark%3D"
    "&X-Amz-Credential=AKIAKEYmark%2F20240101&X-Amz-Signature=SIGNmarkEND2mark"
)
SIGNED = f"https://bucket.test/model.zip?{QUERY}"
MARKS = ("headmark", "midmark", "tailmark", "keymark", "signmark", "end1mark", "end2mark", "ownmark")
"""Letters and digits only: no quoting, escaping or repr changes them."""

SPEC = JobSpec(
    gpu_type="NVIDIA-GeForce-RTX-3090",
    image_path="registry.test/image",
    run_command="python train.py",
    callback_url="https://callbacks.test/OWNmark",
    env={"HF_TOKEN": "OWNmark"},
)


def said_with(token):
    """Give all that the client must keep, as servers repeat it."""
    bearer = f"Bearer {token}"
    return "\n".join(
        [
            f"authorization: {bearer}",
            f"token {token}.",
            repr({b"Authorization": bearer.encode()}),
            json.dumps({"authorization": bearer}),
            json.dumps(json.dumps({"authorization": [token]})),
            f"<p>{html.escape(bearer)}</p>",
            f"?next={quote(bearer, safe='')}&token={quote(token)}",
            token.replace("/", r"\/").replace("<", r"\u003c").replace("&", r"\u0026").replace(">", r"\u003e"),
            SIGNED,
            QUERY,
            f"GET /model.zip?{QUERY} HTTP/1.1",
            f"next={quote(SIGNED, safe='')}",
            json.dumps({"url": SIGNED}).replace("/", r"\/").replace("&", r"\u0026"),
            f"<a href='{html.escape(SIGNED)}'>",
            "<Error><Code>SignatureDoesNotMatch</Code><OSSAccessKeyId>LTAIKEYmark</OSSAccessKeyId>"
            "<SignatureProvided>SIGNmark+AB/END1mark=</SignatureProvided></Error>",
        ]
    )


# Where to look


class Ledger:
    """Everything that a user, a log or a file may have seen of some work; `find` gives the texts that show a secret.

    Frames of this file are not looked at: they know the token.
    """

    def __init__(self, caplog, exporter):
        self.things = []
        self.errors = []
        self.texts = []
        self._caplog = caplog
        self._exporter = exporter

    async def meet(self, work):
        """Await `work` and keep what it gives or raises."""
        try:
            self.things.append(await work)
        except Exception as error:
            self.errors.append(error)

    async def fail(self, kind, work):
        """Await `work`, which must raise exactly this; keep it."""
        with pytest.raises(kind) as caught:
            await work
        assert type(caught.value) is kind, repr(caught.value)
        self.errors.append(caught.value)
        return caught.value

    def keep_files(self, folder):
        """Look at the bytes of all files in there, and at their names."""
        self.texts += [f"{path} {path.read_bytes() if path.is_file() else ''}" for path in folder.rglob("*")]

    def find(self):
        """Give the places where a secret is shown."""
        found = []
        for text in self._all():
            at = min((at for at in map(text.casefold().find, MARKS) if at >= 0), default=None)
            if at is not None:
                found.append(f"{text[max(0, at - 300) : at + 40]!r}")
        return found

    def _all(self):
        for thing in self.things:
            yield from shown(thing)
        for error in self.errors:
            yield from told(error)
        for record in self._caplog.records:
            yield from logged(record)
        yield from (span.to_json() for span in self._exporter.get_finished_spans())
        yield from self.texts


def shown(thing):
    """Give all that printers make of a value."""
    yield from (repr(thing), f"{thing}", f"{[thing]}", pprint.pformat(thing))
    yield str(rich.pretty.traverse(thing))
    yield repr(getattr(thing, "__dict__", ""))
    if hasattr(thing, "_repr_html_"):
        yield thing._repr_html_()


def told(error):
    """Give all that printers make of an error: its text, its attributes, its traceback with all locals."""
    for one in chain(error, set()):
        one.__traceback__ = without_tests(one.__traceback__)
        yield from (repr(one), str(one), repr(one.args), repr(getattr(one, "__notes__", "")))
        for value in vars(one).values():
            yield from shown(value)
    yield "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    yield logging.Formatter().formatException((type(error), error, error.__traceback__))
    pretty = rich.traceback.Traceback.extract(
        type(error), error, error.__traceback__, show_locals=True, locals_max_string=None, locals_max_length=None
    )
    for stack in pretty.stacks:
        yield f"{stack.exc_type} {stack.exc_value}"
        yield from (str(node) for frame in stack.frames for node in (frame.locals or {}).values())
    if isinstance(error, GtsAsyncError):
        # Where it arrives, the spec of an intent and the URL of a look are wanted.
        yield pickle.dumps(error).decode("latin-1").replace("OWNmark", "").replace(SIGNED, "")


def chain(error, seen):
    """Give an error and all that led to it, as tracebacks do."""
    if error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        yield from chain(error.__cause__, seen)
        if not error.__suppress_context__:
            yield from chain(error.__context__, seen)
        for one in getattr(error, "exceptions", ()):
            yield from chain(one, seen)


def without_tests(frames):
    kept = []
    while frames is not None:
        if frames.tb_frame.f_code.co_filename != __file__:
            kept.append(frames)
        frames = frames.tb_next
    whole = None
    for frame in reversed(kept):
        whole = types.TracebackType(whole, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return whole


def logged(record):
    """Give what handlers make of a record."""
    yield repr(vars(record))
    yield record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        yield from told(record.exc_info[1])


@pytest.fixture
def unchecked(caplog, exporter):
    """Give a ledger, and let everything be logged."""
    caplog.set_level(logging.DEBUG)
    exporter.clear()
    return Ledger(caplog, exporter)


@pytest.fixture
def ledger(unchecked):
    """Give a ledger that must be without any secret at the end."""
    yield unchecked
    found = unchecked.find()
    assert not found, "\n".join(found[:8])


def planted(text):
    """Give an error of somebody else's, with a secret among the locals of its frame."""
    code = compile(f"def f(secret=[{text!r}]): raise KeyError('x')\nf()", "elsewhere.py", "exec")
    try:
        exec(code, {})
    except KeyError as error:
        return error


def caused(error, cause):
    error.__cause__ = cause
    return error


def attributed(error, **attributes):
    vars(error).update(attributes)
    return error


PLANTED = {
    "a repr": lambda ledger: ledger.things.append([TOKEN]),
    "an attribute": lambda ledger: ledger.things.append(types.SimpleNamespace(x=quote(TOKEN))),
    "a text": lambda ledger: ledger.errors.append(ValueError(repr(BEARER.encode()))),
    "a local": lambda ledger: ledger.errors.append(planted(TOKEN)),
    "a local of a cause": lambda ledger: ledger.errors.append(caused(ValueError(), planted(QUERY))),
    "a member of a group": lambda ledger: ledger.errors.append(ExceptionGroup("x", [ValueError(SIGNED)])),
    "an attribute of an error": lambda ledger: ledger.errors.append(attributed(ValueError(), body=html.escape(TOKEN))),
    "a log": lambda ledger: logging.getLogger("httpcore.http11").debug("%s", json.dumps(TOKEN)),
    "an argument of a log": lambda ledger: logging.getLogger("x").debug("%.0s", SIGNED),
    "a traceback in a log": lambda ledger: logging.getLogger("x").debug("x", exc_info=planted(TOKEN)),
}


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_a_secret_that_is_shown_is_found(unchecked, plant):
    plant(unchecked)
    assert unchecked.find()


def test_a_secret_in_a_span_is_found(unchecked):
    from opentelemetry import trace

    with pytest.raises(ValueError, match="x"), trace.get_tracer("x").start_as_current_span("x"):
        raise ValueError("x") from ValueError(TOKEN)
    assert unchecked.find()


# Faults of servers


STATUSES = (201, 204, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409, 413, 422, 425, 429, 500, 502)
STATUSES += (503, 504, 600, 999)


class Telltale:
    """What a server does that repeats all it knows: this token, and a signed URL."""

    def __init__(self, token):
        self.token, self.bearer, self.said = token, f"Bearer {token}", said_with(token)
        self.line = f"{self.bearer} {SIGNED}".encode()
        self.body = json.dumps({"status": "success", "url": SIGNED, "job_id": "j-1", "said": self.said}).encode()
        self.headers = [
            ("X-Echo", self.bearer),
            ("Set-Cookie", f"token={token}; Path=/"),
            ("X-Request-Id", token),
            ("WWW-Authenticate", f'Bearer realm="{SIGNED}"'),
            ("Link", f"<{SIGNED}>; rel=preload"),
            ("Retry-After", token),
            ("Location", f"{SIGNED}&token={token}#{token}"),
        ]
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        self.head = f"HTTP/1.1 200 OK\r\n{lines}".encode()

    def answering(self, status, body=b"", kind="text/plain"):
        return chaos.answer(status, body=body or self.said.encode(), headers=[*self.headers, ("Content-Type", kind)])

    def giving(self, document, status=200):
        return self.answering(status, json.dumps(document).encode(), "application/json")

    def raw(self, *pieces):
        return [chaos.send(b"".join(pieces)), chaos.close()]

    def headed(self, *pieces):
        return self.raw(self.head, *pieces)

    def sized(self, body, length=None):
        return self.head + b"content-length: %d\r\n\r\n" % (len(body) if length is None else length) + body

    def answers(self):
        return {
            **{f"D {status}": [self.answering(status)] for status in STATUSES},
            **{
                f"D {status} in JSON": [self.giving({"message": self.said}, status)]
                for status in (302, 400, 401, 403, 413, 429, 500)
            },
            "D 401 bare": [chaos.answer(401, body=self.token.encode())],
            "D 422 of the engine's kind": [
                self.giving({"detail": [{"loc": ["body", self.token], "msg": self.said}]}, 422)
            ],
            "D 400 in a debug page": [self.answering(400, f"<html><pre>{self.said}</pre>".encode(), "text/html")],
            "D 200 with a page": [self.answering(200, f"<html><pre>{self.said}</pre>".encode(), "text/html")],
            "D 200 with nothing": [chaos.answer(200, headers=self.headers)],
            "D 400 no balance": [self.giving({"message": f"sql: no rows in result set {self.said}"}, 400)],
            "D 400 database": [self.giving({"message": f"数据库查询错误 {self.said}"}, 400)],
            "D 400 passing": [self.giving({"message": f"context deadline exceeded {self.said}"}, 400)],
            "D 400 long": [self.giving({"message": ("x" * 190 + self.token) * 300}, 400)],
            "D 400 far behind": [self.giving({"trace": "x" * 100_000, "message": self.said}, 400)],
            "E bad JSON": [self.answering(200, b"{" + self.said.encode())],
            "E cut JSON": [self.answering(200, self.body[:-20])],
            "E a number for the status": [self.giving({"status": 7, "url": SIGNED, "job_id": 8})],
            "E another job": [self.giving({"status": "success", "url": SIGNED, "job_id": self.token})],
            "E no URL": [self.giving({"status": "success", "url": f"ftp://bucket.test/?{QUERY}", "job_id": SIGNED})],
            "E an unknown word": [
                self.giving({"status": f"{self.bearer} {SIGNED}", "url": SIGNED, "job_id": self.bearer})
            ],
            "E a listing": [
                self.giving({"content": [{"jobName": self.token, "status": self.said, "jsonAll": self.said}]})
            ],
            "E a list": [self.giving([self.said])],
            "E a string": [self.giving(self.said)],
            "E not UTF-8": [self.answering(200, b'{"status": "\xff' + self.said.encode() + b'"}')],
            "E cut UTF-8": [self.answering(200, self.said.encode() + b"\xe6\x9c")],
            "E a lone surrogate": [self.giving({"status": "\ud800" + self.said})],
            "E too deep": [self.answering(200, b"[" * 5000 + self.said.encode())],
            "E too large": [self.answering(200, self.said.encode() * 100)],
            "E a bomb": self.headed(b"content-encoding: gzip\r\n\r\n", gzip.compress(self.said.encode() * 1000)),
            "E packed wrongly": self.headed(b"content-encoding: gzip\r\n\r\n", self.said.encode()),
            "E packed, cut": self.headed(b"content-encoding: gzip\r\n\r\n", gzip.compress(self.body)[:-9]),
            "E another coding": self.headed(b"content-encoding: ", self.line, b"\r\n\r\n", self.body),
            "B cut body": self.raw(self.sized(self.said.encode(), 99999)),
            "B cut chunk": self.headed(b"transfer-encoding: chunked\r\n\r\nfff\r\n", self.body),
            "B bad chunk size": self.headed(b"transfer-encoding: chunked\r\n\r\n", self.line, b"\r\n"),
            "B bad status line": self.raw(self.line, b"\r\n\r\n"),
            "B bad header": self.raw(b"HTTP/1.1 200 OK\r\n", b"\x01", self.line, b"\r\n\r\n"),
            "B header without a name": self.raw(b"HTTP/1.1 200 OK\r\n: ", self.line, b"\r\n\r\n"),
            "B bad length": self.headed(b"content-length: ", self.line, b"\r\n\r\n"),
            "B two lengths": self.headed(b"content-length: 5\r\ncontent-length: 6\r\n\r\n", self.body),
            "B unknown transfer": self.headed(b"transfer-encoding: ", self.line, b"\r\n\r\n"),
            "B large header": self.headed(b"x: ", self.line * 1000, b"\r\n\r\n"),
            "B cut header": self.headed(b"x: ", self.line),
            "B 101": self.raw(b"HTTP/1.1 101 Switching\r\nupgrade: ", self.line, b"\r\n\r\n", self.said.encode()),
            "B a reason": self.raw(b"HTTP/1.1 404 ", self.line, b"\r\ncontent-length: 3\r\n\r\nno!"),
            "B bytes after the end": self.raw(self.sized(b"{}"), self.said.encode()),
            "B closed": [chaos.close()],
            "B reset in the body": [chaos.send(self.sized(self.body, 99999)), chaos.pause(0.01), chaos.reset()],
        }

    def delays(self):
        return {
            "C silence": [chaos.stall()],
            "C silence in the body": [chaos.send(self.sized(self.body, 99999)), chaos.stall()],
            "C header drip": [chaos.send(self.head), chaos.endlessly(b"x: " + self.line + b"\r\n", every=0.005)],
            "C body drip": [chaos.send(self.sized(b"", 99999)), chaos.endlessly(self.line, every=0.005)],
            "B endless 103": [
                chaos.endlessly(b"HTTP/1.1 103 Early Hints\r\nlink: " + self.line + b"\r\n\r\n", every=0.005)
            ],
        }


API, STORE = Telltale(TOKEN), Telltale("of-nobody")
ANSWERS, SLOW = API.answers(), API.delays()
SAID, answering, giving = API.said, API.answering, API.giving


class Quick(LoopClock):
    """The machine's time, but nobody sleeps."""

    async def sleep(self, seconds):
        await asyncio.sleep(0)


class Hurried(LoopClock):
    """Waits a hundredth of what it is asked to: a lost answer is settled after half a minute."""

    async def sleep(self, seconds):
        await super().sleep(seconds / 100)

    def now(self):
        return super().now() * 100


def session_for(server, **options):
    options = {
        "cloud": f"{server.url}/api",
        "token": TOKEN,
        "timeouts": Timeouts(total=2),
        "retry": RetryPolicy(max_attempts=2, initial=0.001, maximum=0.001),
        "limits": Limits(max_answer_bytes=150_000),
        **options,
    }
    return AsyncSession(**options)


def insides(session):
    """Give what a session is made of."""
    exchange, settings = session._cloud.exchange, session._settings
    line = exchange._line
    inner = [] if line is None else [line, line.client, line.client._transport, line.credential]
    return [session, session._cloud, exchange, session._lines, settings, settings._found, session.job("j-1"), *inner]


@pytest.mark.parametrize("fault", ANSWERS.values(), ids=ANSWERS)
async def test_no_answer_brings_a_secret_into_view(ledger, server, fault):
    events = []
    # Two seconds for each call, by this clock.
    times = Timeouts(total=200)
    async with session_for(server, on_event=events.append, clock=Hurried(), timeouts=times) as session:
        server.otherwise(*fault)
        await ledger.meet(session.job("j-1").status())
        await ledger.meet(session.submit(SPEC))
        await ledger.meet(session.list_jobs())
        ledger.things += [*insides(session), events]
    assert len(server.requests) >= 3
    assert len(ledger.errors) >= 2


@pytest.mark.parametrize("fault", SLOW.values(), ids=SLOW)
async def test_no_deadline_brings_a_secret_into_view(ledger, server, fault):
    async with session_for(server) as session:
        server.otherwise(*fault)
        await ledger.meet(session.job("j-1").status(timeout=0.05))
        await ledger.meet(session.submit(SPEC, timeout=0.05))
    assert len(ledger.errors) == 2


# Faults on the way to a server


async def no_name(*_, **__):
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


CERTIFICATES = {"A7": chaos.Certificate.UNKNOWN, "A8": chaos.Certificate.WRONG_HOST}


@pytest.mark.parametrize("certificate", CERTIFICATES.values(), ids=CERTIFICATES)
async def test_no_certificate_brings_a_secret_into_view(ledger, certificate):
    async with ChaosServer(tls=certificate) as server, session_for(server, ca_file=server.ca_file) as session:
        await ledger.fail(NotSent, session.job("j-1").status())
        await ledger.fail(NotSent, session.submit(SPEC))


@pytest.mark.parametrize("said", [b"", API.line * 10], ids=["A12 closed", "A12 no TLS"])
async def test_no_handshake_brings_a_secret_into_view(ledger, said):
    async with ChaosServer(tls=True) as server, session_for(server, ca_file=server.ca_file) as session:
        for _ in range(4):
            server.on_connection(chaos.before_handshake(chaos.send(said), chaos.close()))
        await ledger.fail(NotSent, session.job("j-1").status())
        await ledger.fail(NotSent, session.submit(SPEC))


async def test_no_refused_connection_brings_a_secret_into_view(ledger, server, monkeypatch):
    async with session_for(server) as session:
        server.refuse()
        await ledger.fail(NotSent, session.submit(SPEC))
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", no_name)
    async with session_for(server, cloud="https://cloud.test/api") as session:
        await ledger.fail(NotSent, session.submit(SPEC))


# Faults on our own side


@pytest.mark.parametrize("fault", [*ANSWERS, *SLOW][::15])
async def test_no_cancellation_brings_a_secret_into_view(ledger, server, cancelled_after, fault):
    async with session_for(server) as session:
        server.otherwise(*{**ANSWERS, **SLOW}[fault])

        async def work():
            try:
                await session.job("j-1").status(timeout=0.05)
            except BaseException as error:
                ledger.errors.append(error)
                raise

        for turns in range(2, 26, 6):
            await cancelled_after(turns, work)
    assert any(isinstance(error, asyncio.CancelledError) for error in ledger.errors)


async def test_no_misuse_of_a_session_brings_a_secret_into_view(ledger, server):
    session = session_for(server)

    def elsewhere():
        asyncio.run(ledger.fail(MisuseError, session.submit(SPEC)))

    async with session:
        await ledger.meet(session.job("j-1").status())
        await asyncio.to_thread(elsewhere)
        for garbage in (TOKEN, BEARER, json.dumps({"kind": "job", "token": TOKEN}), f'{{"kind": "{TOKEN}"'):
            with pytest.raises(InvalidArgument) as caught:
                session.resume(garbage)
            ledger.errors.append(caught.value)
        with pytest.raises(TypeError) as refused:
            pickle.dumps(session)
        ledger.errors.append(refused.value)
        ledger.texts += [session.job("j-1").token()]
    await ledger.fail(MisuseError, session.submit(SPEC))
    ledger.things += insides(session)


async def test_no_hook_that_fails_brings_a_secret_into_view(ledger, server, caplog):
    def hook(event):
        raise RuntimeError(f"no metrics for {event}, {vars(type(event))}")

    async with session_for(server, on_event=hook) as session:
        server.otherwise(giving({"message": SAID}, 400))
        await ledger.meet(session.submit(SPEC))
    assert any(record.exc_info for record in caplog.records)


async def asked_anew():
    if asked_anew.left:
        return asked_anew.left.pop()
    raise RuntimeError(f"{TOKEN} cannot be renewed")


asked_anew.left = [TOKEN]


async def asked_badly():
    try:
        raise httpx.LocalProtocolError(f"Illegal header value {BEARER.encode()}")
    except httpx.LocalProtocolError as error:
        raise RuntimeError("the login failed") from error


async def asked_by_url():
    raise OSError(f"GET https://login.test/?client_secret={TOKEN} failed")


async def two_lines():
    return f"{TOKEN}\n{TOKEN}"


async def in_bytes():
    return BEARER.encode()


def not_async():
    return TOKEN


CALLABLES = {
    "raises the token that it gave before": (asked_anew, NotSent),
    "raises with a header": (asked_badly, NotSent),
    "raises with a URL": (asked_by_url, NotSent),
    "gives two lines": (two_lines, InvalidArgument),
    "gives bytes": (in_bytes, InvalidArgument),
    "is not async": (not_async, InvalidArgument),
}


@pytest.mark.parametrize(("ask", "kind"), CALLABLES.values(), ids=CALLABLES)
async def test_no_callable_for_tokens_brings_a_secret_into_view(ledger, server, ask, kind):
    async with session_for(server, token=ask) as session:
        server.otherwise(answering(401))
        with pytest.raises(kind) as caught:
            await session.submit(SPEC)
        ledger.errors.append(caught.value)
        ledger.things += insides(session)


async def test_what_a_callable_for_tokens_raised_can_still_be_reached(server):
    async with session_for(server, token=asked_by_url) as session:
        with pytest.raises(NotSent) as caught:
            await session.submit(SPEC)
    assert caught.value.__cause__ is None
    assert isinstance(caught.value.__context__, OSError)


WRONG = {
    "a token in two lines": {"token": f"{TOKEN}\n{TOKEN}"},
    "a token in bytes": {"token": TOKEN.encode()},
    "a token that is not ASCII": {"token": f"{TOKEN}é"},
    "a wrong engine": {"engine": "ftp://engine.test"},
    "a wrong dialect": {"dialect": "2001-01"},
    "a wrong host": {"store_hosts": "a b/c"},
    "two ways out": {"transport": httpx.MockTransport(print), "http_client": httpx.AsyncClient},
    "a clear way": {"cloud": "http://cloud.test/api"},
    "an authority that is not there": {"ca_file": "/nowhere.pem"},
}


@pytest.mark.parametrize("options", WRONG.values(), ids=WRONG)
async def test_no_wrong_setting_brings_a_secret_into_view(ledger, options):
    with pytest.raises(InvalidArgument) as caught:
        async with AsyncSession(**{"cloud": "https://cloud.test/api", "token": TOKEN, **options}) as session:
            await session.submit(SPEC)
    ledger.errors.append(caught.value)


class Failing(httpx.AsyncByteStream):
    async def __aiter__(self):
        yield SAID.encode()
        raise RuntimeError("a fault of the body's")


def failing(request):
    assert request.headers["authorization"] == BEARER
    raise RuntimeError("a fault of the transport's")


def failing_late(request):
    return httpx.Response(200, headers=API.headers, stream=Failing())


@pytest.mark.parametrize("answer", [failing, failing_late], ids=["at once", "in the body"])
@pytest.mark.parametrize("given", ["transport", "http_client"])
async def test_no_transport_of_the_users_brings_a_secret_into_view(ledger, server, answer, given):
    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport) as client:
        given = {"transport": transport} if given == "transport" else {"http_client": client}
        async with session_for(server, **given) as session:
            await ledger.fail(RuntimeError, session.submit(SPEC))
            await ledger.fail(RuntimeError, session.job("j-1").status())


async def test_the_users_own_client_logs_no_secret_of_ours(ledger, server):
    async with httpx.AsyncClient() as client, session_for(server, http_client=client) as session:
        server.otherwise(answering(302))
        await ledger.meet(session.submit(SPEC))
    assert len(ledger.errors) == 1


async def test_no_file_that_vanishes_brings_a_secret_into_view(ledger, server, tmp_path):
    path = tmp_path / "train.json"
    path.write_text("{}")

    async def vanish(connection):
        path.unlink()
        await STORE.answering(503)(connection)

    async with session_for(server, engine=server.url) as session:
        server.otherwise(vanish)
        # The engine is sent no token.
        await ledger.fail(FileMissing, session.task("t").upload(path))
    assert all(request.header("authorization") is None for request in server.requests)


# Watched work


def looks(*documents):
    """Give a transport whose looks these are, the last one for ever."""
    left = list(documents)

    def answer(request):
        document = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(document, int):
            return httpx.Response(document, headers=API.headers, text=SAID)
        return httpx.Response(200, headers=API.headers, json=document)

    return httpx.MockTransport(answer)


GOING = {"status": "working", "url": "", "said": SAID}
ENDS = {
    "G5 failed": ([GOING, {"status": "fail", "url": SIGNED}], {}, WorkFailed),
    "G6 stalled": ([GOING], {"stalled_after": 60}, WorkStalled),
    "G6 late": ([GOING], {"deadline": 60}, DeadlineExceeded),
    "G6 late, and not stopped": ([GOING, GOING, 500], {"deadline": 60, "on_exit": "stop"}, DeadlineExceeded),
    "G6 an unknown word": ([{"status": f"{BEARER} {SIGNED}"}], {"deadline": 60}, DeadlineExceeded),
    "G2 gone": ([GOING, {}], {}, WorkLost),
    "G2 out of reach": ([GOING, 502], {}, WorkLost),
    "D5 unauthorized": ([GOING, 401], {}, Unauthorized),
}


@pytest.mark.parametrize(("documents", "options", "kind"), ENDS.values(), ids=ENDS)
async def test_no_end_of_a_wait_brings_a_secret_into_view(ledger, exporter, documents, options, kind):
    events = []
    transport, clock = looks(*documents), FakeClock()
    async with AsyncSession(
        cloud="https://cloud.test/api", token=TOKEN, transport=transport, clock=clock, on_event=events.append
    ) as session:
        job = session.job("j-1")
        error = await ledger.fail(kind, job.wait(**options))
        ledger.things += [events, getattr(error, "handle", None), getattr(error, "history", None)]
    assert exporter.get_finished_spans()
    assert events


async def test_no_stopped_work_brings_a_secret_into_view(ledger):
    async with AsyncSession(
        cloud="https://cloud.test/api", token=TOKEN, transport=looks(GOING, {"message": SAID}), clock=FakeClock()
    ) as session:
        job = session.job("j-1")
        await job.stop()
        await ledger.fail(WorkStopped, job.wait())


def test_a_look_shows_its_url_to_nobody_but_whoever_asks_for_it(ledger):
    look = JobInfo(JobStatus.SUCCEEDED, SIGNED, word=SIGNED)
    assert look.url == SIGNED
    ledger.things += [look, (look,), {"look": look}]


# What is on the disk


async def test_no_journal_holds_a_secret(ledger, server, tmp_path):
    book = tmp_path / "batch.db"
    specs = [SPEC] * 3
    for _ in range(2):
        async with session_for(server, clock=Hurried()) as session:
            server.on_request(chaos.answer(json={"job_id": "j-1"}))
            server.otherwise(giving({"message": SAID}, 500))
            async with session.submit_many(specs, journal=book) as outcomes:
                found = [outcome async for outcome in outcomes]
        ledger.things += [found]
        ledger.errors += [outcome.error for outcome in found if outcome.error is not None]
    assert {type(error) for error in ledger.errors} == {OutcomeUnknown}
    # It holds the specs, and with them what is the user's own.
    for path in tmp_path.iterdir():
        kept = path.read_bytes().decode("latin-1").casefold()
        assert [mark for mark in MARKS if mark in kept] in ([], ["ownmark"])


async def test_no_fault_of_a_journal_or_checkpoint_brings_a_secret_into_view(ledger, server, tmp_path):
    (tmp_path / "text").write_text(SAID)
    for place in (tmp_path, tmp_path / "text", tmp_path / "nowhere" / "batch.db"):
        async with session_for(server) as session:
            with pytest.raises((FileError, OSError)) as caught:
                async with session.submit_many([SPEC], journal=place) as outcomes:
                    [outcome.unwrap() async for outcome in outcomes]
        ledger.errors.append(caught.value)
        with pytest.raises((FileError, OSError)) as caught:
            await Checkpoint(place, "t").known(0, [{"content": "x"}])
        ledger.errors.append(caught.value)
    assert server.requests == []


# Callbacks


async def test_no_forged_callback_brings_a_secret_into_view(ledger, server):
    bodies = [API.body, SAID.encode(), b"{" + SAID.encode(), json.dumps({"status": SIGNED, "jobId": TOKEN}).encode()]
    async with session_for(server) as session:
        app = receiver(session, "https://callbacks.test/sxwl")
        spec = app.spec(JobSpec(gpu_type="g", image_path="i"))
        own = spec.callback_url.rpartition("/")[2]
        statuses = []
        for path in (f"/sxwl/{own}", f"/sxwl/{TOKEN}"):
            for body in bodies:
                statuses.append(await posted(app, path, body))
        ledger.things += [app, app.received, spec, vars(app)]
        assert own not in "".join(text for thing in (app, spec) for text in shown(thing))
    assert set(statuses[:4]) == {200, 400}
    assert set(statuses[4:]) == {404}


async def posted(app, path, body):
    sent = []

    async def receive():
        return {"type": "http.request", "body": body}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": path}, receive, send)
    return sent[0]["status"]


# Downloads


PACKED = io.BytesIO()
with zipfile.ZipFile(PACKED, "w") as packed:
    packed.writestr("model.bin", b"0" * 100_000)
ESCAPING = io.BytesIO()
with zipfile.ZipFile(ESCAPING, "w") as packed:
    packed.writestr("../evil", b"0")
MODEL = PACKED.getvalue()
HALF = STORE.head + b'etag: "v1"\r\ncontent-length: %d\r\n\r\n' % len(MODEL) + MODEL[:60]


def refusing(status, code):
    text = html.escape(STORE.said, quote=False)
    body = f"<Error><Code>{code}</Code><Message>{text[:3000]}</Message><StringToSign>{text}</StringToSign></Error>"
    return [STORE.answering(status, body.encode(), "application/xml")]


def to(location):
    return [chaos.answer(302, headers=[("Location", location)])]


STORES = {
    **{name: fault for name, fault in STORE.answers().items() if name.startswith(("B", "E", "D 200", "D 30"))},
    "D6 signature": refusing(403, "SignatureDoesNotMatch"),
    "D6 expired": refusing(403, "AccessDenied"),
    "D6 token expired": refusing(400, "ExpiredToken"),
    "D6 in the message": [STORE.answering(403, f"<Error><Message>{QUERY} {SIGNED}</Message></Error>".encode())],
    "I6 gone": refusing(404, "NoSuchKey"),
    "D10 too often": refusing(429, "SlowDown"),
    "D1 failing": refusing(503, "SlowDown"),
    "D1 cut while it refuses": STORE.raw(b"HTTP/1.1 403 No\r\ncontent-length: 9999\r\n\r\n", STORE.said.encode()),
    "D12 to nowhere": to(f"http://[?{QUERY}"),
    "D12 to a file": to(f"file:///etc/passwd?{QUERY}"),
    "D12 to the metadata": to(f"http://169.254.169.254/latest?{QUERY}"),
    "D12 to a user": to(f"http://LTAIKEYmark:SIGNmark@127.0.0.1/?{QUERY}"),
    "D12 to nobody": to(f"http://127.0.0.1:1/model.zip?{QUERY.replace('mark', 'mark2')}"),
    "D12 in circles": to(f"?{QUERY}"),
    "I1 cut": STORE.raw(HALF),
    "I4 changed": STORE.headed(b"content-length: 4\r\ncontent-md5: 1B2M2Y8AsgTpgAmY7PhCfg==\r\n\r\nabcd"),
    "I9 too much": STORE.headed(b"content-length: 4\r\n\r\nabcd", STORE.said.encode()),
    "I7 neither length nor checksum": STORE.headed(b"\r\n", MODEL),
    "I16 no zip": [chaos.answer(body=STORE.said.encode())],
    "I16 an evil member": [chaos.answer(body=ESCAPING.getvalue())],
}


def stored(server, store):
    """Let the API tell of a model in the store."""
    url = f"{store.url}/bucket/model.zip?{QUERY}"
    server.otherwise(giving({"status": "success", "url": url, "job_id": "j-1", "said": SAID}))


def check_store(store):
    """Check that nothing of the API's went to the store."""
    assert store.requests
    for request in store.requests:
        names = {name for name, _ in request.headers}
        assert names <= {"host", "accept-encoding", "range", "if-range"}
        assert not any(mark in repr(request).casefold() for mark in ("headmark", "midmark", "tailmark"))


@pytest.fixture
async def store():
    """Give a second chaos server."""
    async with ChaosServer() as store:
        yield store


@pytest.mark.parametrize("fault", STORES.values(), ids=STORES)
async def test_no_store_brings_a_secret_into_view(ledger, server, store, tmp_path, fault):
    async with session_for(server, clock=Quick()) as session:
        stored(server, store)
        store.otherwise(*fault)
        await ledger.meet(session.job("j-1").download(tmp_path))
        ledger.things += [session._lines, session._lines._store]
    assert len(ledger.errors) == 1
    check_store(store)
    # What a store sends as the object may be anything; the note beside it is ours.
    ledger.texts += [f"{path}" for path in tmp_path.iterdir()]
    ledger.texts += [path.read_text() for path in tmp_path.glob(".*.json")]


@pytest.mark.parametrize("fault", STORE.delays().values(), ids=STORE.delays())
async def test_no_slow_store_brings_a_secret_into_view(ledger, server, store, tmp_path, fault):
    async with session_for(server, clock=Quick()) as session:
        store.otherwise(*fault)
        speed = MinimumSpeed(1 << 20, 0.05)
        client, url = await session._lines.store(), f"{store.url}/?{QUERY}"
        fetching = download(client, url, tmp_path / "m", fence=HERE, max_attempts=1, minimum_speed=speed)
        await ledger.fail(TransportError, fetching)


async def test_no_url_that_is_refused_comes_into_view(ledger, server, tmp_path):
    async with session_for(server, clock=Quick()) as session:
        client = await session._lines.store()
        for url in (SIGNED.replace("https", "http"), f"https://u:SIGNmark@bucket.test/?{QUERY}", f"//[?{QUERY}", QUERY):
            await ledger.fail(UnsafeURL, download(client, url, tmp_path / "m"))


async def test_no_name_of_a_store_that_leads_nowhere_brings_a_secret_into_view(ledger, server, monkeypatch, tmp_path):
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", no_name)
    async with session_for(server, clock=Quick()) as session:
        server.otherwise(giving({"status": "success", "url": SIGNED}))
        await ledger.fail(NotSent, session.job("j-1").download(tmp_path))


async def test_no_store_in_a_forbidden_place_brings_a_secret_into_view(ledger, server, monkeypatch, tmp_path):
    async with session_for(server, clock=Quick()) as session:
        client = await session._lines.store()

        async def here(*_, **__):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", here)
        url = f"https://bucket.test:{server.port}/?{QUERY}"
        await ledger.fail(UnsafeURL, download(client, url, tmp_path / "m", max_attempts=1))


@pytest.mark.parametrize("then", [403, 500, 401])
async def test_no_fresh_url_brings_a_secret_into_view(ledger, server, store, tmp_path, then):
    async with session_for(server, clock=Quick()) as session:
        server.on_request(giving({"status": "success", "url": f"{store.url}/?{QUERY}"}))
        server.otherwise(answering(then))
        store.otherwise(*STORES["D6 expired"])
        await ledger.meet(session.job("j-1").download(tmp_path))
    assert len(ledger.errors) == 1


async def test_no_full_disk_brings_a_secret_into_view(ledger, server, store, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = [chaos.send(STORE.head + b"content-length: 5000000\r\n\r\n"), chaos.endlessly(b"0" * 65536)]
    async with session_for(server, clock=Quick()) as session:
        stored(server, store)
        store.otherwise(*large)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            error = await ledger.fail(FileError, session.job("j-1").download(tmp_path))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, ignored)
    assert error.__cause__.errno == errno.EFBIG


async def test_no_folder_that_cannot_be_made_brings_a_secret_into_view(ledger, server, store, tmp_path):
    (tmp_path / "file").touch()
    async with session_for(server, clock=Quick()) as session:
        stored(server, store)
        await ledger.meet(session.job("j-1").download(tmp_path / "file" / "model"))
    assert [type(error) for error in ledger.errors] == [FileError]
    assert store.requests == []


async def test_no_note_beside_a_download_holds_a_secret(ledger, server, store, tmp_path):
    async with session_for(server, clock=Quick()) as session:
        stored(server, store)
        store.otherwise(*STORES["I1 cut"])
        await ledger.fail(TransportError, session.job("j-1").download(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {".j-1.zip.part", ".j-1.zip.part.json"}
    assert store.url in (tmp_path / ".j-1.zip.part.json").read_text()
    ledger.keep_files(tmp_path)


async def test_no_cancelled_download_brings_a_secret_into_view(ledger, server, store, tmp_path, cancelled_after):
    async with session_for(server, clock=Quick()) as session:
        stored(server, store)
        store.otherwise(chaos.send(HALF), chaos.stall())

        async def work():
            try:
                await session.job("j-1").download(tmp_path)
            except BaseException as error:
                ledger.errors.append(error)
                raise

        for turns in (1, 9, 21, 33, 45, 80):
            await cancelled_after(turns, work)
    ledger.keep_files(tmp_path)
    assert any(isinstance(error, asyncio.CancelledError) for error in ledger.errors)


async def test_the_log_tells_where_a_model_came_from_but_not_the_query(ledger, server, store, tmp_path, caplog):
    async with session_for(server, clock=Quick()) as session:
        stored(server, store)
        store.otherwise(chaos.answer(body=MODEL))
        await session.job("j-1").download(tmp_path)
    # httpx2, which may stand in for httpx, logs under names of its own.
    said = {record.name.replace("2", ""): record.getMessage() for record in caplog.records}
    assert f"{store.url}/bucket/model.zip?<redacted>" in said["httpx"]
    assert {"httpcore.http11", "httpcore.connection", "gts_async"} <= set(said)


# The token stays with its service


def own_client():
    return httpx.AsyncClient(headers={"Authorization": BEARER}, cookies={"c": TOKEN}, params={"q": TOKEN})


GIVEN = {
    "a session's own client": lambda: {},
    "a transport": lambda: {"transport": httpx.AsyncHTTPTransport()},
    "a client that sends the token with everything": lambda: {"http_client": own_client()},
}


@pytest.mark.parametrize("is_same_origin", [False, True], ids=["another origin", "the service's own origin"])
@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
async def test_no_store_is_sent_the_token(ledger, server, store, tmp_path, given, is_same_origin):
    store = server if is_same_origin else store
    url = f"{store.url}/bucket/model.zip?{QUERY}"

    async def answer(connection):
        path, target = connection.request.path, connection.request.target
        if path.startswith("/api"):
            await giving({"status": "success", "url": url})(connection)
        elif not target.endswith("&again=1"):
            await chaos.answer(307, headers=[*STORE.headers[:-1], ("Location", f"{url}&again=1")])(connection)
        else:
            await chaos.answer(body=MODEL, headers=STORE.headers)(connection)

    server.otherwise(answer)
    store.otherwise(answer)
    options = given()
    async with session_for(server, **options) as session:
        await session.job("j-1").download(tmp_path)
    if "http_client" in options:
        await options["http_client"].aclose()
    api = [request for request in server.requests if request.path.startswith("/api")]
    fetched = [request for request in store.requests if request not in api]
    assert [request.header("authorization") for request in api] == [BEARER]
    assert len(fetched) == 2
    check_store(types.SimpleNamespace(requests=fetched))


# The command line


COMMANDS = (
    ["job", "status", "j-1"],
    ["job", "list"],
    ["job", "gpus"],
    ["job", "stop", "j-1"],
    ["job", "wait", "j-1", "--deadline", "0.02"],
    ["job", "submit", "--gpu-type", "g", "--image-path", "i", "--deadline", "0.02"],
    ["job", "download", "j-1", "model"],
    ["ping"],
)
SAYING = {
    **{name: ANSWERS[name] for name in ("D 302", "D 401", "D 400 in JSON", "E an unknown word", "E not UTF-8")},
    "D 500 for long": [chaos.answer(500, body=SAID.encode(), headers=[*API.headers[:-2], ("Retry-After", "9999")])],
}


@pytest.fixture
def command(ledger, monkeypatch, tmp_path, capsys):
    """Give ``command(*arguments, **environment)``: run `gts-async` here and keep what it prints."""
    for name in ("ENGINE", "CLOUD", "TOKEN", "TOKEN_FILE", "DIALECT", "CA_FILE", "STORE_HOSTS", "DEBUG"):
        monkeypatch.delenv(f"GTS_ASYNC_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def command(*arguments, stdin="", **environment):
        with monkeypatch.context() as scope, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            scope.setattr(sys, "stdin", io.StringIO(stdin))
            for name, value in environment.items():
                scope.setenv(f"GTS_ASYNC_{name}", value)
            code = main(arguments)
        shown = capsys.readouterr()
        ledger.texts += [shown.out, shown.err, *(f"{warning.message}" for warning in warned)]
        return code

    return command


@pytest.mark.parametrize("number", range(len(SAYING)), ids=SAYING)
def test_no_command_prints_a_secret(command, chaos_server, number):
    chaos_server.otherwise(*list(SAYING.values())[number])
    # Each command meets half of the faults, with JSON and without.
    for place, arguments in enumerate(COMMANDS[number % 2 :: 2]):
        flags = ["--json"] if place + number // 2 & 1 else []
        command(*arguments, *flags, CLOUD=f"{chaos_server.url}/api", TOKEN=TOKEN, DEBUG="1")
    assert {request.header("authorization") for request in chaos_server.requests} == {BEARER}


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "json"])
def test_no_command_that_downloads_prints_a_secret(command, chaos_server, flags):
    url = f"{chaos_server.url}/bucket/model.zip?{QUERY}"
    for refused in (STORES["D6 signature"], STORES["D12 to a file"], STORES["I16 no zip"]):
        chaos_server.on_request(giving({"status": "success", "url": url}))
        chaos_server.on_request(*refused)
        chaos_server.otherwise(giving({"message": SAID}, 400))
        assert command("job", "download", "j-1", "model", *flags, CLOUD=f"{chaos_server.url}/api", TOKEN=TOKEN) != 0
    look = ("job", "status", "j-1")
    chaos_server.otherwise(giving({"status": "success", "url": url}))
    assert command(*look, *flags, CLOUD=f"{chaos_server.url}/api", TOKEN=TOKEN) == 0


def test_no_place_of_the_token_makes_a_command_print_it(command, chaos_server, tmp_path):
    (tmp_path / "token").write_text(f"{BEARER}\n")
    (tmp_path / "token").chmod(0o644)
    (tmp_path / "bad").write_bytes(b"\xff" + TOKEN.encode())
    (tmp_path / "two").write_text(f"{TOKEN}\n{TOKEN}\n")
    chaos_server.otherwise(answering(401))
    cloud = {"CLOUD": f"{chaos_server.url}/api"}
    look = ("job", "status", "j-1")
    good = [
        command(*look, **cloud, TOKEN=TOKEN),
        command(*look, **cloud, TOKEN_FILE=str(tmp_path / "token")),
        command(*look, "--token-file", "token", **cloud),
        command(*look, "--token-file", "-", stdin=f"{TOKEN}\n", **cloud),
    ]
    assert good == [4] * 4
    assert [request.header("authorization") for request in chaos_server.requests] == [BEARER] * 4
    bad = [
        command(*look, **cloud, TOKEN=f"{TOKEN}\n{TOKEN}"),
        command(*look, **cloud, TOKEN_FILE=str(tmp_path / "bad")),
        command(*look, **cloud, TOKEN_FILE=str(tmp_path)),
        command(*look, **cloud, TOKEN_FILE=TOKEN),
        command(*look, "--token-file", TOKEN, **cloud),
        command(*look, "--token-file", "two", **cloud),
        command(*look, "--token-file", "bad", **cloud),
        command(*look, "--token-file", "-", stdin=f"{TOKEN} {TOKEN}\n", **cloud),
        command(*look, CLOUD=f"https://user:{TOKEN}@cloud.test", TOKEN=TOKEN),
        command(*look, CLOUD=f"https://cloud.test?token={TOKEN}", TOKEN=TOKEN),
        command(*look, CLOUD="http://cloud.test", TOKEN=TOKEN),
    ]
    assert bad == [3] * len(bad)
    assert [command(*look, *flag, **cloud) for flag in (["--token", TOKEN], [f"--token={TOKEN}"])] == [2, 2]
    assert len(chaos_server.requests) == 4


@pytest.mark.parametrize(
    "text", [f'token = "{TOKEN}', f'token = ["{TOKEN}"]', f'token = "{TOKEN}"\nx = "{TOKEN}"', f'tokn = "{TOKEN}"']
)
def test_no_configuration_file_makes_a_command_print_the_token(command, chaos_server, tmp_path, text):
    (tmp_path / "gts_async.toml").write_text(text)
    assert command("job", "status", "j-1", CLOUD=f"{chaos_server.url}/api", DEBUG="1") == 3
    assert chaos_server.requests == []
