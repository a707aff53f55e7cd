"""Signatures by Standard Webhooks, judged by that standard's own library."""

import base64
import hashlib
import hmac
import time
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from gts_async import InvalidArgument
from gts_async.callbacks import Receiver, receiver
from gts_async.callbacks.verification import Verifier

BASE = "https://hooks.test/jobs"
FAILED = b'{"jobId":"","status":"fail","url":""}\n'
NOW = 1_700_000_000.0
OLD, NEW, OTHER = (f"whsec_{base64.b64encode(hashlib.sha256(name).digest()).decode()}" for name in (b"1", b"2", b"3"))


def signed(*secrets, body=FAILED, at=NOW, name="msg_1"):
    """Give the headers that a gateway with these secrets sends."""
    moment = datetime.fromtimestamp(at, UTC)
    signatures = [Webhook(secret).sign(name, moment, body.decode("latin-1")) for secret in secrets]
    return {"webhook-id": name, "webhook-timestamp": str(int(at)), "webhook-signature": " ".join(signatures)}


def listed(headers):
    return [(name.encode(), value.encode()) for name, value in headers.items()]


class Bells:
    def __init__(self):
        self.rung = []

    def ring(self, key):
        self.rung.append(key)


async def post(app, headers, body=FAILED, path=None):
    sent = []

    async def receive():
        return {"type": "http.request", "body": body}

    async def send(message):
        sent.append(message)

    path = path or app.url().removeprefix("https://hooks.test")
    await app({"type": "http", "method": "POST", "path": path, "headers": headers}, receive, send)
    return sent[0]["status"]


def app_of(*secrets, session=None):
    return Receiver(session, BASE, verifier=Verifier(secrets), now=lambda: NOW)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ((OLD,), (OLD,)),
        ((OLD, NEW), (OLD,)),
        ((OLD, NEW), (NEW,)),
        ((NEW,), (OLD, NEW)),
        ((OLD, NEW), (OTHER, OLD, NEW)),
        ((OLD,), (*[OTHER] * 15, OLD)),
    ],
)
async def test_what_is_signed_with_one_of_our_secrets_is_taken(ours, theirs):
    app = app_of(*ours)
    assert await post(app, listed(signed(*theirs))) == 200
    assert (app.received.rung, app.received.unsigned) == (1, 0)


def changed(**fields):
    headers = {**signed(OLD), **{name.replace("_", "-"): value for name, value in fields.items()}}
    return listed({name: value for name, value in headers.items() if value is not None})


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="nothing"),
        pytest.param(listed(signed(OTHER)), id="another secret"),
        pytest.param(listed(signed(OLD, body=b"{}")), id="another body"),
        pytest.param(changed(webhook_id="msg_2"), id="another id"),
        pytest.param(changed(webhook_id=None), id="no id"),
        pytest.param(listed(signed(OLD, name="")), id="empty id"),
        pytest.param(changed(webhook_timestamp=str(int(NOW) + 1)), id="another time"),
        pytest.param(changed(webhook_timestamp=None), id="no time"),
        pytest.param(changed(webhook_timestamp="now"), id="no number"),
        pytest.param(changed(webhook_timestamp="9" * 5000), id="a number without end"),
        pytest.param(changed(webhook_timestamp=f"+{int(NOW)}"), id="a number with a sign"),
        pytest.param(changed(webhook_signature=None), id="no signature"),
        pytest.param(changed(webhook_signature=""), id="empty signature"),
        pytest.param(changed(webhook_signature=signed(OLD)["webhook-signature"][3:]), id="no version"),
        pytest.param(changed(webhook_signature=f"v2,{signed(OLD)['webhook-signature'][3:]}"), id="another version"),
        pytest.param(changed(webhook_signature=signed(OLD)["webhook-signature"][:-1]), id="cut signature"),
        pytest.param(changed(webhook_signature="v1, " * 100_000), id="signatures without end"),
        pytest.param(changed(webhook_signature="v1,令"), id="no ASCII"),
        pytest.param(listed(signed(*[OTHER] * 16, OLD)), id="a good one after sixteen"),
        pytest.param([*changed(), (b"webhook-id", b"msg_1")], id="a header twice"),
        pytest.param(listed(signed(OLD, at=NOW - 301)), id="too old"),
        pytest.param(listed(signed(OLD, at=NOW + 301)), id="from the future"),
    ],
)
async def test_what_is_not_signed_is_refused_and_wakes_nobody(headers):
    bells = Bells()
    app = app_of(OLD, NEW, session=bells)
    assert await post(app, headers) == 401
    assert (app.received.unsigned, app.received.rung, bells.rung) == (1, 0, [])


@pytest.mark.parametrize("seconds", [-300, 0, 300])
async def test_clocks_may_differ_by_five_minutes(seconds):
    assert await post(app_of(OLD), listed(signed(OLD, at=NOW + seconds))) == 200


async def test_the_signature_is_looked_at_before_the_body():
    app = app_of(OLD)
    assert await post(app, listed(signed(OTHER, body=b"no json")), b"no json") == 401
    assert await post(app, listed(signed(OLD, body=b"no json")), b"no json") == 400
    assert (app.received.unsigned, app.received.malformed) == (1, 1)


async def test_the_bytes_are_signed_as_they_came():
    spaced = b' { "status" :\t"fail" }\r\n'
    app = app_of(OLD)
    assert await post(app, listed(signed(OLD, body=spaced)), spaced) == 200
    assert await post(app, listed(signed(OLD, body=spaced)), b'{"status":"fail"}') == 401


async def test_a_signature_does_not_make_a_url_known():
    app = app_of(OLD)
    assert await post(app, listed(signed(OLD)), path="/jobs/guess") == 404


async def test_a_flood_that_is_not_read_wakes_nobody_where_signatures_are_asked_for():
    bells = Bells()
    app = app_of(OLD, session=bells)
    app._at_once = app._limits.max_at_once
    assert await post(app, listed(signed(OLD))) == 503
    assert bells.rung == []


@pytest.mark.parametrize(
    "secret", ["whsec_", "whsec_U0VDUkVUbWFyaw==", "whsec_SECRETmark!", "SECRETmark", "whsec_令", b"SECRETmark", None]
)
def test_what_is_no_secret_is_refused_without_being_repeated(secret):
    with pytest.raises(InvalidArgument, match="signing_secrets") as caught:
        receiver(None, BASE, signing_secrets=[OLD, secret])
    ours = caught.traceback[1:]
    assert len(ours) > 1
    shown = str(caught.value) + "".join(repr(entry.frame.f_locals) for entry in ours)
    assert [text for text in (OLD, "SECRETmark", "U0VDUkVU") if text in shown] == []


async def test_one_secret_need_not_be_in_a_list():
    app = receiver(None, BASE, signing_secrets=OLD)
    assert await post(app, listed(signed(OLD, at=time.time()))) == 200
    assert await post(app, listed(signed(NEW, at=time.time()))) == 401


def test_a_list_without_any_secret_lets_nothing_in():
    with pytest.raises(InvalidArgument, match="signing_secrets"):
        Receiver(None, BASE, verifier=Verifier([]))


def test_one_signature_in_words():
    """The standard's formula, written out."""
    key = base64.b64decode(OLD.removeprefix("whsec_"))
    code = base64.b64encode(hmac.new(key, b"msg_1.1700000000." + FAILED, hashlib.sha256).digest())
    headers = [(b"webhook-id", b"msg_1"), (b"webhook-timestamp", b"1700000000"), (b"webhook-signature", b"v1," + code)]
    assert Verifier([OLD]).is_signed(headers, FAILED, NOW)
