"""How callback bodies are read: as documented, and as the servers really send them."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from gts_async._errors import UnexpectedAnswer
from gts_async.sxwl.callbacks import Callback, read_callback
from gts_async.sxwl.values import JobStatus

SAMPLES = Path(__file__).parent.parent / "samples" / "sxwl"
ID = "aia1905cd8-650a-4cd9-b005-677ec3376db0"
URL = "https://b.oss-cn-beijing.aliyuncs.com/aia1905cd8%2Fdata.zip?Expires=1705801600&OSSAccessKeyId=LTAIexample&Signature=bFuarxMadeUp%3D"


@pytest.mark.parametrize(
    ("sample", "claimed"),
    [
        ("callback_documented.json", Callback(ID, JobStatus.SUCCEEDED, "https://xxxxx", "success")),
        ("callback_go_success.json", Callback(ID, JobStatus.SUCCEEDED, URL, "success")),
        ("callback_go_fail.json", Callback(None, JobStatus.FAILED, None, "fail")),
        ("callback_java_success.json", Callback(ID, JobStatus.SUCCEEDED, URL, "success")),
        ("callback_java_fail.json", Callback(None, JobStatus.FAILED, None, "fail")),
    ],
)
def test_every_servers_callback_is_read(sample, claimed):
    body = (SAMPLES / sample).read_bytes()
    assert read_callback(body) == claimed
    assert read_callback(body) == read_callback(body)


@pytest.mark.parametrize(
    ("document", "claimed"),
    [
        ({"status": "success"}, Callback(None, JobStatus.SUCCEEDED, None, "success")),
        ({"status": "success", "jobId": None, "url": None}, Callback(None, JobStatus.SUCCEEDED, None, "success")),
        ({"status": "fail", "job_id": ID, "jobId": ""}, Callback(ID, JobStatus.FAILED, None, "fail")),
        ({"status": "fail", "job_id": ID, "jobId": ID}, Callback(ID, JobStatus.FAILED, None, "fail")),
        ({"status": "sucess", "jobId": ID}, Callback(ID, JobStatus.SUCCEEDED, None, "sucess")),
        ({"status": "paused", "jobId": ID}, Callback(ID, JobStatus.UNKNOWN, None, "paused")),
    ],
)
def test_a_callback_may_leave_out_what_it_likes_but_the_status(document, claimed):
    assert read_callback(json.dumps(document).encode()) == claimed


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"success",
        b"{}",
        b"[]",
        b"null",
        b'{"status":null}',
        b'{"status":"fail"',
        b'{"status":"fail","jobId":7}',
        b'{"status":"fail","jobId":"../x"}',
        b'{"status":"fail","jobId":"ai1","job_id":"ai2"}',
        b'{"status":"success","url":"ftp://h/p"}',
        b'{"status":"success","url":["https://h"]}',
        b'{"status":"\xff"}',
        b"[" * 100_000,
    ],
    ids=lambda body: body[:40].decode("ascii", "replace"),
)
def test_a_malformed_callback_is_unexpected(body):
    with pytest.raises(UnexpectedAnswer) as caught:
        read_callback(body)
    assert caught.value.call == "callback"


def test_a_callback_does_not_show_the_signed_url():
    assert "Signature" not in repr(read_callback((SAMPLES / "callback_go_success.json").read_bytes()))


@given(st.binary(max_size=200))
def test_only_unexpected_answer_comes_of_any_body(body):
    with contextlib.suppress(UnexpectedAnswer):
        assert isinstance(read_callback(body), Callback)
