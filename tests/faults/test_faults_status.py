"""Statuses and gateways: what an answer means that is none of the service's own, for a look and for a create."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from gts_async import (
    Denied,
    InvalidData,
    OutcomeUnknown,
    RateLimited,
    RetryPolicy,
    ServerFailed,
    ServiceError,
    Unauthorized,
    UnexpectedAnswer,
)
from gts_async.testing import chaos

PAGE = b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head><body>" + b"\x1b[31mnginx\x1b[0m\x07" * 200
HTML = [("Content-Type", "text/html")]
WELL = {"status": "working", "job_id": "j-1"}
EVIL = "https://evil.test:8443/api/userJob?X-Amz-Signature=TOPSECRET"
PATIENCE = RetryPolicy(initial=0.001, maximum=0.01, max_retry_after=1)


def calls(case):
    """Run a test with a call that may be repeated and with one that must not be."""
    return pytest.mark.parametrize("call", ["look", "create"], ids=[f"{case} look", f"{case} create"])


# The server failed

FAILURES = {
    "D1 502 with a web page": chaos.answer(502, body=PAGE, headers=HTML),
    "D1 503 with a web page": chaos.answer(503, body=PAGE, headers=HTML),
    "D1 504 with nothing": chaos.answer(504),
    "D1 500 with JSON": chaos.answer(500, json={"message": "panic: \x1b[2J nil pointer"}),
    "D1 500 with bytes": chaos.answer(500, body=b"\xff\xfe\x00\x1b]0;x\x07" * 50),
    "D1 599": chaos.answer(599, body=b"network connect timeout"),
    "D1 507": chaos.answer(507, json=["disk full"]),
    "D1 408": chaos.answer(408, body=b"took too long"),
    "D1 425": chaos.answer(425, body=b"too early"),
}


def check_text(error, status):
    """Check that a failure is told in a line or two that no terminal would stumble over."""
    assert str(status) in str(error)
    for text in (str(error), error.attempts[-1].cause):
        assert len(text) < 500
        assert all(c == "\n" or c.isprintable() for c in text)


@pytest.mark.parametrize("answer", FAILURES.values(), ids=FAILURES)
async def test_a_server_that_fails_is_asked_four_times_by_a_look(floor, server, answer):
    status = int(answer.args[0].split()[1])
    async with floor(server) as this:
        server.otherwise(answer)
        error = await this.fails(ServerFailed, this.look(), status=status, stage="answer")
        assert len(error.attempts) == len(server.requests) == 4
        assert [attempt.status for attempt in error.attempts] == [status] * 4
        assert all(c == "\n" or c.isprintable() for c in error.body)
        check_text(error, status)


@pytest.mark.parametrize("answer", FAILURES.values(), ids=FAILURES)
async def test_a_server_that_fails_once_is_asked_again_by_a_look(floor, server, answer):
    async with floor(server) as this:
        server.on_request(answer)
        await this.look()
        assert len(server.requests) == 2
        assert [event.kind for event in this.events] == ["tried again", "answered"]


@pytest.mark.parametrize("answer", FAILURES.values(), ids=FAILURES)
async def test_a_server_that_fails_with_a_create_may_have_done_it(floor, server, answer):
    status = int(answer.args[0].split()[1])
    async with floor(server) as this:
        server.otherwise(answer)
        error = await this.fails(OutcomeUnknown, this.create(), stage="answer")
        assert len(error.attempts) == len(server.requests) == 1
        assert type(error.__cause__) is ServerFailed
        assert error.__cause__.status == status
        assert error.intent.spec is not None
        assert error.url.endswith("/api/userJob")
        check_text(error, status)


@pytest.mark.parametrize(
    "ask", ["3600", "999999999999999999999"], ids=["D1 Retry-After: an hour", "D1 Retry-After: ages"]
)
async def test_a_failing_server_that_asks_for_too_long_a_wait_is_not_asked_again(floor, server, ask):
    async with floor(server) as this:
        server.otherwise(chaos.answer(503, headers=[("Retry-After", ask)]))
        error = await this.fails(ServerFailed, this.look(), status=503)
        assert len(error.attempts) == len(server.requests) == 1


# Not the service at all

STRANGE = {
    "D2 web page": chaos.answer(200, body=PAGE, headers=HTML),
    "D2 web page that calls itself JSON": chaos.answer(200, body=PAGE, headers=[("Content-Type", "application/json")]),
    "D2 login page": chaos.answer(200, body=b"\n\n  <html>Please sign in to the hotel's network", headers=HTML),
    "D2 text": chaos.answer(200, body=b"ok"),
    "D4 application error": chaos.answer(json={"ret": -1, "msg": "no such user"}),
    "D4 application error with a code": chaos.answer(json={"code": 500, "message": "no such user"}),
    "D15 null": chaos.answer(json=None),
    "D15 list": chaos.answer(json=[]),
    "D15 number": chaos.answer(json=7),
    "D15 201": chaos.answer(201, json={"id": 7}),
    "D15 204": chaos.answer(204),
    "D15 206": chaos.answer(206, json={"id": 7}),
}


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE)
async def test_an_answer_that_is_not_the_services_is_unexpected_and_asked_for_once(floor, server, answer):
    async with floor(server) as this:
        server.otherwise(answer)
        error = await this.fails(UnexpectedAnswer, this.look(), call="job_status")
        assert error.problem
        # 2048 characters of the server's, some of them spelled out in four.
        assert len(error.body) < 4 * 2048 + 40
        assert len(str(error)) < 1000
        assert all(c == "\n" or c.isprintable() for c in str(error) + error.body)
        assert len(server.requests) == 1


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE)
async def test_a_create_whose_answer_is_not_the_services_may_have_happened(floor, server, answer):
    async with floor(server) as this:
        server.otherwise(answer)
        error = await this.fails(OutcomeUnknown, this.create())
        assert type(error.__cause__) is UnexpectedAnswer
        assert len(error.attempts) == len(server.requests) == 1


async def test_an_empty_answer_is_another_try_for_a_look(floor, server):
    # It may be the beginning of a good one.
    async with floor(server) as this:
        server.on_request(chaos.answer(200))
        await this.look()
        assert len(server.requests) == 2


async def test_an_answer_that_is_always_empty_is_unexpected(floor, server):
    async with floor(server) as this:
        server.otherwise(chaos.answer(200))
        error = await this.fails(UnexpectedAnswer, this.look(), problem="the answer is empty")
        assert error.body == ""
        assert len(server.requests) == 4


async def test_a_create_with_an_empty_answer_may_have_happened(floor, server):
    async with floor(server) as this:
        server.otherwise(chaos.answer(200))
        error = await this.fails(OutcomeUnknown, this.create())
        assert len(error.attempts) == len(server.requests) == 1


# Redirects

MOVED = [300, 301, 302, 303, 304, 305, 307, 308]


@calls("D12")
@pytest.mark.parametrize("status", MOVED)
async def test_no_redirect_is_followed_and_its_host_is_named_without_its_query(floor, server, call, status):
    async with floor(server) as this:
        server.otherwise(chaos.answer(status, headers=[("Location", EVIL)]))
        error = await this.fails(UnexpectedAnswer, this.send(call))
        assert "evil.test:8443" in str(error)
        assert "Signature" not in str(error) + error.body
        assert len(server.requests) == 1


LOCATIONS = {
    "D12 same server": "/elsewhere?X-Amz-Signature=TOPSECRET",
    "D12 credentials": "https://user:TOPSECRET@evil.test/x",
    "D12 without a scheme": "//evil.test/x?TOPSECRET",
    "D12 no URL": "http://[::1",
    "D12 no text": "\x7f\x80\xff",
    "D12 control characters": "https://evil.test/\x1b[31m?TOPSECRET",
    "D12 endless": "https://evil.test/" + "x" * 20_000,
    "D12 script": "javascript:alert(1)",
    "D12 empty": "",
}


@pytest.mark.parametrize("call", ["look", "create"])
@pytest.mark.parametrize("location", LOCATIONS.values(), ids=LOCATIONS)
async def test_no_redirect_to_whatever_is_followed_or_hurts(floor, server, call, location):
    async with floor(server) as this:
        server.otherwise(chaos.answer(302, headers=[("Location", location)]))
        error = await this.fails(UnexpectedAnswer, this.send(call))
        assert len(str(error)) < 800
        assert all(c == "\n" or c.isprintable() for c in str(error))
        assert len(server.requests) == 1


@calls("D12 without a location")
async def test_a_redirect_to_nowhere_is_unexpected(floor, server, call):
    async with floor(server) as this:
        server.otherwise(chaos.answer(301))
        await this.fails(UnexpectedAnswer, this.send(call))
        assert len(server.requests) == 1


# The server said no

FIELDS = {"detail": [{"loc": ["body", "gpuNumber"], "msg": "value is not a valid integer", "type": "type_error"}]}
REFUSALS = {
    "D9 409": (409, {"message": "job j-7 exists already"}, ServiceError, "job j-7 exists already"),
    "D14 413": (413, {"message": "at most 1 MB"}, InvalidData, "at most 1 MB"),
    "D14 422": (422, FIELDS, ServiceError, "gpuNumber"),
    "D14 400 about a field": (
        400,
        {"message": 'field "gpuNumber" is not set'},
        InvalidData,
        'field "gpuNumber" is not set',
    ),
    "D5 401": (401, {"message": "expired"}, Unauthorized, "expired"),
    "D6 403": (403, {"message": "not yours"}, Denied, "not yours"),
    "D14 400": (400, {"message": "no"}, ServiceError, "no"),
    "D14 402": (402, {"message": "pay first"}, ServiceError, "pay first"),
    "D14 410": (410, {"message": "gone"}, ServiceError, "gone"),
    "D14 418": (418, {"message": "teapot"}, ServiceError, "teapot"),
    "D14 451": (451, {"message": "not here"}, ServiceError, "not here"),
}


@calls("refused")
@pytest.mark.parametrize(("status", "document", "kind", "said"), REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal_is_final_and_told_in_the_servers_words(floor, server, call, status, document, kind, said):
    async with floor(server) as this:
        server.otherwise(chaos.answer(status, json=document))
        error = await this.fails(kind, this.send(call), code=status)
        assert said in error.message
        assert said in str(error)
        assert len(server.requests) == 1


@calls("refused by an engine")
async def test_field_errors_of_an_engine_are_told_by_field(floor, server, call):
    async with floor(server, engine=server.url) as this:
        server.otherwise(chaos.answer(422, json=FIELDS))
        task = this.session.task("tnews")
        work = (
            task.status()
            if call == "look"
            else this.session.create_task("t", task_type="classification", engine_type="bagualu")
        )
        await this.fails(InvalidData, work, code=422, message="gpuNumber: value is not a valid integer")
        assert len(server.requests) == 1


# Too many requests

HOUR = timedelta(hours=1)
ASKED = {
    "D10 no Retry-After": (None, None),
    "D10 none at all": ("0", 0.0),
    "D10 a past date": ("Mon, 01 Jan 2024 00:00:30 GMT", 0.0),
    "D10 negative": ("-5", None),
    "D10 nonsense": ("soon", None),
    "D10 empty": ("", None),
}


@calls("429")
@pytest.mark.parametrize(("ask", "told"), ASKED.values(), ids=ASKED)
async def test_too_many_requests_is_waited_out_and_sent_again(floor, server, call, ask, told):
    headers = [] if ask is None else [("Retry-After", ask)]
    async with floor(server) as this:
        server.on_request(chaos.answer(429, json={"message": "slowly"}, headers=headers))
        await this.send(call)
        assert len(server.requests) == 2
        server.otherwise(chaos.answer(429, json={"message": "slowly"}, headers=headers))
        error = await this.fails(RateLimited, this.send(call), code=429, message="slowly")
        assert error.retry_after == told
        assert len(server.requests) == 2 + 4


@calls("429 too long a wait")
@pytest.mark.parametrize("ask", ["3600", "99999999999999999999", "date"], ids=["D10 an hour", "D10 ages", "D10 a date"])
async def test_too_many_requests_for_too_long_is_told_at_once(floor, server, call, ask):
    if ask == "date":
        ask = format_datetime(datetime.now(UTC) + HOUR, usegmt=True)
    async with floor(server, retry=PATIENCE) as this:
        server.otherwise(chaos.answer(429, json={"message": "slowly"}, headers=[("Retry-After", ask)]))
        error = await this.fails(RateLimited, this.send(call), code=429)
        assert error.retry_after > 3500
        assert len(server.requests) == 1


# Tokens


class Tokens:
    """Gives another token each time it is asked."""

    def __init__(self):
        self.given = 0

    async def __call__(self):
        self.given += 1
        return f"{'TOPSECRET' * 4}{self.given}"


@calls("D5 a new token")
async def test_after_a_401_a_new_token_is_asked_for_and_the_call_sent_once_more(floor, server, call):
    tokens = Tokens()
    async with floor(server, token=tokens) as this:
        server.on_request(chaos.answer(401, json={"message": "Unauthorized"}))
        await this.send(call)
        assert [request.header("authorization")[-1] for request in server.requests] == ["1", "2"]


@calls("D5 a new token, refused too")
async def test_a_second_401_is_told(floor, server, call):
    tokens = Tokens()
    async with floor(server, token=tokens) as this:
        server.otherwise(chaos.answer(401, json={"message": "Unauthorized"}))
        await this.fails(Unauthorized, this.send(call), code=401)
        assert len(server.requests) == tokens.given == 2


# Servers that show what they were sent


def echo(status):
    async def action(connection):
        said = {"message": "debug: " + json.dumps(dict(connection.request.headers))}
        headers = [("Location", f"https://evil.test/{connection.request.header('authorization').split()[1]}")]
        await chaos.answer(status, json=said, headers=headers)(connection)

    return action


@calls("K2 an answer that repeats the request's headers")
@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 413, 422, 429, 500, 502])
async def test_a_debug_page_that_repeats_the_token_does_not_bring_it_into_any_text(floor, server, call, status):
    async with floor(server) as this:
        server.otherwise(echo(status))
        with pytest.raises((ServiceError, UnexpectedAnswer, ServerFailed, OutcomeUnknown)):
            await this.send(call)
