"""The receiver as an ASGI app: which URLs it knows, what it answers, and when it wakes a watch."""

import asyncio
import logging
import string
import tracemalloc

import attrs
import pytest

from gts_async import InvalidArgument, JobSpec, WrongType
from gts_async.callbacks import CallbackLimits, Receiver, receiver

BASE = "https://hooks.test/jobs"
SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image")
FAILED = b'{"jobId":"","status":"fail","url":""}\n'
JSON = ((b"content-type", b"application/json; charset=utf-8"),)


class Bells:
    """Stands where the session does: notes whose watch was woken."""

    def __init__(self, events=None):
        self.rung = [] if events is None else events

    def ring(self, key):
        self.rung.append(key)


@attrs.frozen
class Answered:
    status: int
    headers: dict


class Sender:
    """Plays an ASGI server that passes one request on, in the given parts."""

    def __init__(self, *parts, pause=0.0, ends=True):
        self.parts = list(parts)
        self.taken = 0
        self.pause = pause
        self.ends = ends
        self.sent = []

    async def receive(self):
        await asyncio.sleep(self.pause)
        if not self.parts:
            assert not self.ends, "read on after the end"
            return {"type": "http.disconnect"}
        part = self.parts.pop(0)
        self.taken += len(part)
        return {"type": "http.request", "body": part, "more_body": bool(self.parts) or not self.ends}

    async def send(self, message):
        self.sent.append(message)

    async def post(self, app, path, method="POST", headers=JSON, **scope):
        scope = {"type": "http", "method": method, "path": path, "headers": headers, **scope}
        await app(scope, self.receive, self.send)
        start, body = self.sent
        assert (start["type"], body) == ("http.response.start", {"type": "http.response.body", "body": b""})
        return Answered(start["status"], dict(start["headers"]))


def path_of(url):
    return url.removeprefix("https://hooks.test")


async def post(app, path, body=FAILED, **options):
    return await Sender(body).post(app, path, **options)


# URLs


def test_each_job_gets_a_url_of_its_own():
    app = receiver(None, BASE)
    urls = {app.spec(SPEC).callback_url for _ in range(1000)}
    assert len(urls) == 1000
    assert all(url.startswith(f"{BASE}/") for url in urls)


def test_the_unguessable_part_has_more_than_128_bits():
    urls = [receiver(None, BASE).url().rpartition("/")[2] for _ in range(200)]
    assert set("".join(urls)) <= {*string.ascii_letters, *string.digits, "-", "_"}
    # 43 characters of 6 bits; no place but the last is ever the same in all of them.
    assert [len({url[place] for url in urls}) > 5 for place in range(43)] == [True] * 43


def test_the_longest_url_leaves_room_for_the_mark_of_a_submission():
    longest = "https://hooks.test/" + "x" * 171
    url = receiver(None, longest).url()
    marked = JobSpec(gpu_type="g", image_path="i", callback_url=f"{url}#gts-0123456789abcdef")
    assert len(marked.callback_url) == 255
    with pytest.raises(InvalidArgument, match="255"):
        receiver(None, f"{longest}x")


@pytest.mark.parametrize(
    "base", ["hooks.test", "ftp://hooks.test", "https://hooks.test/?a=b", "https://u:p@hooks.test"]
)
def test_a_base_url_that_cannot_be_called_is_refused(base):
    with pytest.raises(InvalidArgument, match="base_url"):
        receiver(None, base)


def test_a_path_that_the_clouds_client_takes_for_a_variable_is_refused():
    with pytest.raises(InvalidArgument, match="colon"):
        receiver(None, "https://hooks.test/:jobs")


def test_a_spec_that_has_a_url_is_refused():
    app = receiver(None, BASE)
    with pytest.raises(InvalidArgument, match="callback_url"):
        app.spec(app.spec(SPEC))


def forgeries():
    """Give what somebody might try who has seen one URL; `t` is its token."""
    yield "nothing", lambda t: ""
    yield "a guess", lambda t: "guess"
    yield "one of another key", lambda t: receiver(None, BASE).url().rpartition("/")[2]
    yield "its id without the code", lambda t: t[:22]
    yield "its code without the id", lambda t: t[22:]
    yield "something before", lambda t: f"x{t}"
    yield "something behind", lambda t: f"{t}x"
    yield "a good one twice", lambda t: t + t
    yield "padding", lambda t: f"{t}="
    yield "other case", lambda t: t.swapcase()
    yield "a path below", lambda t: f"{t}/more"
    yield "zeros", lambda t: "A" * 43
    yield "no ASCII", lambda t: "令" * 43
    yield "half a character", lambda t: "\ud800" * 43
    yield "100 KB", lambda t: "A" * 100_000
    for place in range(43):
        # Beside the very next character too: of the last one, base64 would read only some of the bits.
        yield f"another character at {place}", lambda t, p=place: t[:p] + ("A" if t[p] != "A" else "B") + t[p + 1 :]
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    yield "the same bytes in another spelling", lambda t: t[:-1] + alphabet[alphabet.index(t[-1]) ^ 1]


@pytest.mark.parametrize("forged", [pytest.param(forged, id=name) for name, forged in forgeries()])
async def test_a_url_that_was_never_given_out_is_unknown(forged):
    bells = Bells()
    app = receiver(bells, BASE)
    token = app.url().rpartition("/")[2]
    for method in ("POST", "GET"):
        answered = await post(app, f"/jobs/{forged(token)}", method=method)
        assert answered.status == 404
    assert app.received.unknown == 2
    assert bells.rung == []


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/jobs/{}", {}),
        ("/jobs/{}/", {}),
        ("/jobs/{}//", {}),
        ("/{}", {}),
        ("/{}", {"root_path": "/jobs"}),
        ("/jobs/{}", {"root_path": "/jobs"}),
        ("/app/jobs/{}/", {"root_path": "/app/jobs", "app_root_path": "/app"}),
        ("{}", {}),
    ],
)
async def test_it_may_be_mounted_under_any_path(path, scope):
    app = receiver(None, BASE)
    answered = await post(app, path.format(app.url().rpartition("/")[2]), **scope)
    assert answered.status == 200
    assert app.received.rung == 1


# What is refused


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "post", "BREW"])
async def test_another_method_is_refused_with_the_one_that_is_allowed(method):
    bells = Bells()
    app = receiver(bells, BASE)
    answered = await post(app, path_of(app.url()), method=method)
    assert (answered.status, answered.headers[b"allow"]) == (405, b"POST")
    assert (app.received.refused, bells.rung) == (1, [])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 200),
        ([(b"content-type", b"application/json")], 200),
        ([(b"Content-Type", b"Application/JSON;charset=UTF-8")], 200),
        ([(b"content-type", b"text/plain")], 415),
        ([(b"Content-Type", b"text/plain")], 415),
        ([(b"content-type", b"application/x-www-form-urlencoded")], 415),
        ([(b"content-type", b"application/jsonp")], 415),
        ([(b"content-type", b"")], 415),
        ([(b"content-type", b"application/json"), (b"content-type", b"text/plain")], 415),
        ([*JSON, (b"content-encoding", b"identity")], 200),
        ([*JSON, (b"content-encoding", b"gzip")], 415),
    ],
)
async def test_only_json_in_plain_sight_is_read(headers, status):
    app = receiver(None, BASE)
    assert (await post(app, path_of(app.url()), headers=headers)).status == status
    assert (app.received.rung, app.received.refused) == ((1, 0) if status == 200 else (0, 1))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"status":7}', b'{"status":"fail","jobId":"../.."}'])
async def test_what_is_no_callback_is_malformed(body):
    bells = Bells()
    app = receiver(bells, BASE)
    assert (await post(app, path_of(app.url()), body)).status == 400
    assert (app.received.malformed, bells.rung) == (1, [])


async def test_a_body_of_64_kib_is_read_and_one_byte_more_is_too_large():
    app = receiver(None, BASE)
    whole = FAILED + b" " * (64 * 1024 - len(FAILED))
    assert (await post(app, path_of(app.url()), whole)).status == 200
    sender = Sender(*(whole[i : i + 1000] for i in range(0, len(whole), 1000)), b" ")
    answered = await sender.post(app, path_of(app.url()))
    assert (answered.status, answered.headers[b"connection"]) == (413, b"close")
    assert (app.received.rung, app.received.refused) == (1, 1)


async def test_a_huge_body_is_taken_in_to_be_answered_but_neither_kept_nor_for_ever():
    app = receiver(None, BASE)
    part = b" " * (1 << 20)
    ten = Sender(*[part] * 10)
    tracemalloc.start()
    try:
        assert (await ten.post(app, path_of(app.url()))).status == 413
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert ten.taken == 10 << 20
    many = Sender(*[part] * 100)
    assert (await many.post(app, path_of(app.url()))).status == 413
    assert many.taken <= 17 << 20


async def test_nothing_is_read_of_a_body_that_comes_to_no_url():
    sender = Sender(FAILED)
    answered = await sender.post(receiver(None, BASE), "/jobs/guess")
    assert (answered.status, answered.headers[b"connection"]) == (404, b"close")
    assert sender.taken == 0


async def test_http2_has_no_header_that_closes():
    assert b"connection" not in (await post(receiver(None, BASE), "/jobs/guess", http_version="2")).headers


async def test_a_body_that_drips_is_too_slow_although_it_never_pauses_for_long():
    app = receiver(None, BASE, limits=CallbackLimits(body_time=0.05))
    sender = Sender(*[b" "] * 1000, FAILED, pause=0.005)
    assert (await sender.post(app, path_of(app.url()))).status == 408
    assert (app.received.rung, app.received.refused) == (0, 1)


async def test_a_body_that_is_cut_is_no_callback_even_if_it_reads_as_one():
    bells = Bells()
    app = receiver(bells, BASE)
    await Sender(FAILED, ends=False).post(app, path_of(app.url()))
    assert (app.received.refused, bells.rung) == (1, [])


# Waking


async def test_the_answer_comes_first_and_then_the_watch_of_that_job_is_woken():
    events = []
    app = receiver(Bells(events), BASE)
    app.url()
    url = app.url()
    sender = Sender(FAILED)
    sender.sent = events
    await app({"type": "http", "method": "POST", "path": path_of(url), "headers": JSON}, sender.receive, sender.send)
    assert [event if isinstance(event, str) else event.get("status") for event in events] == [200, None, url]


async def test_a_job_of_this_process_is_not_woken_by_what_a_callback_to_another_says():
    bells = Bells()
    app = receiver(bells, BASE)
    url = app.url()
    await post(app, path_of(url), b'{"status":"success","jobId":"somebody-elses"}')
    assert bells.rung == [url]


async def test_what_comes_again_is_answered_alike_and_wakes_nobody():
    bells = Bells()
    app = receiver(bells, BASE)
    url = app.url()
    for _ in range(3):
        assert (await post(app, path_of(url))).status == 200
    assert bells.rung == [url]
    assert (app.received.rung, app.received.repeated) == (1, 2)
    assert (await post(app, path_of(url), b'{"status":"success","jobId":"ai1"}')).status == 200
    assert bells.rung == [url, url]


@pytest.mark.parametrize(
    ("body", "is_news"),
    [
        (b'{"status":"success","jobId":"ai1","url":"https://store.test/a"}', False),
        (b'{"url":"https://store.test/a","jobId":"ai1","status":"success","more":1}', False),
        (b'{"status":"fail","jobId":"ai1","url":"https://store.test/a"}', True),
        (b'{"status":"success","jobId":"ai1","url":"https://store.test/b"}', True),
        (b'{"status":"success","jobId":"ai1"}', True),
        (b'{"status":"success","jobId":"ai2","url":"https://store.test/a"}', True),
    ],
)
async def test_a_callback_is_another_one_if_it_claims_something_else(body, is_news):
    app = receiver(None, BASE)
    path = path_of(app.url())
    await post(app, path, b'{"status":"success","jobId":"ai1","url":"https://store.test/a"}')
    assert (await post(app, path, body)).status == 200
    assert (app.received.rung, app.received.repeated) == ((2, 0) if is_news else (1, 1))


async def test_a_sender_that_is_gone_before_its_answer_has_woken_the_watch():
    bells = Bells()
    app = receiver(bells, BASE)
    url = app.url()

    async def send(message):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await app(
            {"type": "http", "method": "POST", "path": path_of(url), "headers": JSON}, Sender(FAILED).receive, send
        )
    assert bells.rung == [url]


async def test_a_request_that_is_cancelled_at_any_moment_wakes_the_watch_or_takes_no_place(cancelled_after):
    bells = Bells()
    app = Receiver(bells, BASE, limits=CallbackLimits(max_at_once=1))
    for turns in range(12):
        url = app.url()
        sender = Sender(FAILED)
        scope = {"type": "http", "method": "POST", "path": path_of(url), "headers": JSON}
        await cancelled_after(turns, lambda sender=sender, scope=scope: app(scope, sender.receive, sender.send))
        assert bool(sender.sent) <= (url in bells.rung)
        assert (await post(app, path_of(app.url()))).status == 200
    assert app.received.busy == 0


async def test_more_at_once_than_fit_are_told_to_come_back_and_wake_their_watches_all_the_same():
    bells = Bells()
    app = receiver(bells, BASE, limits=CallbackLimits(max_at_once=2))
    slow = [asyncio.create_task(Sender(FAILED, pause=0.05).post(app, path_of(app.url()))) for _ in range(2)]
    await asyncio.sleep(0)
    url = app.url()
    answered = await post(app, path_of(url))
    assert (answered.status, answered.headers[b"retry-after"]) == (503, b"1")
    assert bells.rung == [url]
    assert [(await answered).status for answered in slow] == [200, 200]
    assert (await post(app, path_of(url))).status == 200
    assert (app.received.busy, app.received.rung) == (1, 4)


# The rest of ASGI


async def test_a_server_that_announces_its_start_and_end_is_answered():
    app = receiver(None, BASE)
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_websocket_is_closed():
    app = receiver(None, BASE)
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    await app({"type": "websocket", "path": path_of(app.url())}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


# What is said


@pytest.mark.parametrize(
    ("base", "lines"),
    [("http://hooks.test", 1), ("https://hooks.test", 0), ("http://127.0.0.1:80", 0), ("http://localhost", 0)],
)
def test_urls_that_go_over_plain_http_to_another_machine_are_warned_of(base, lines, caplog):
    receiver(None, base)
    assert len(caplog.records) == lines


async def test_no_request_however_wrong_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    app = receiver(None, BASE, limits=CallbackLimits(body_time=0.01))
    path = path_of(app.url())
    for _ in range(20):
        await post(app, "/jobs/guess")
        await post(app, path, b"x")
        await post(app, path, method="GET")
        await post(app, path, b" " * 70_000)
    await Sender(FAILED, pause=0.05).post(app, path)
    assert caplog.records == []
    assert (app.received.unknown, app.received.malformed, app.received.refused) == (20, 20, 41)


def test_neither_urls_nor_keys_nor_secrets_are_shown():
    app = receiver(None, BASE, signing_secrets=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
    token = app.url().rpartition("/")[2]
    text = repr(app) + repr(vars(app)) + repr(app.received)
    assert token not in text
    assert "MfKQ9r8" not in text
    assert "key=" not in text


@pytest.mark.parametrize("field", [field.name for field in attrs.fields(CallbackLimits)])
def test_limits_under_which_nothing_could_come_in_are_refused(field):
    with pytest.raises(InvalidArgument, match=field):
        CallbackLimits(**{field: 0})
    with pytest.raises(WrongType, match=field):
        CallbackLimits(**{field: "5"})
