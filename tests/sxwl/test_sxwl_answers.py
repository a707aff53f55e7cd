"""How each answer of the cloud is read: a value, or one of our errors."""

import json
import traceback
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from gts_async._errors import (
    Denied,
    GtsAsyncError,
    InvalidData,
    NotFound,
    OutcomeUnknown,
    QuotaExceeded,
    RateLimited,
    ServerFailed,
    ServiceError,
    Unauthorized,
    UnexpectedAnswer,
)
from gts_async.sxwl.calls import create_job, delete_job, gpu_types, job_status, list_jobs, stop_job
from gts_async.sxwl.dialects import dialect
from gts_async.sxwl.values import GpuType, JobInfo, JobListing, JobSpec, JobStatus
from gts_async.wire import Answer

SAMPLES = Path(__file__).parent.parent / "samples" / "sxwl"
OLD, NEW = dialect("2023-12"), dialect("2024-04")
ID = "aia1905cd8-650a-4cd9-b005-677ec3376db0"
URL = "https://b.oss-cn-beijing.aliyuncs.com/ai1%2Fdata.zip?Expires=1705801600&OSSAccessKeyId=LTAI&Signature=s3cret%3D"
SPEC = JobSpec(gpu_type="NVIDIA-A100-SXM4-80GB", image_path="registry.example/train:test")

CREATE = create_job(OLD, SPEC)
STATUS_OLD, STATUS_NEW = job_status(OLD, ID), job_status(NEW, ID)
REPEATABLE = [STATUS_OLD, STATUS_NEW, stop_job(NEW, ID), delete_job(OLD, ID), list_jobs(NEW), gpu_types(NEW)]
ALL = [CREATE, *REPEATABLE]


def sample(name):
    return (SAMPLES / name).read_bytes()


def text(status, body, kind="text/plain; charset=utf-8"):
    return Answer(status, (("content-type", kind),), body.encode())


def java(message):
    return Answer.json(400, {"status": 400, "timestamp": 1703210400000, "message": message})


def name(call):
    return call.name


# What was asked for ------------------------------------------------------------------------------------------------


def test_the_documented_answer_to_create_gives_the_id():
    assert CREATE.read(Answer(200, body=sample("create_answer.json"))) == ID


def test_the_documented_success_gives_the_url_byte_for_byte():
    answer = Answer(200, body=sample("status_success.json"))
    info = STATUS_OLD.read(answer)
    assert info == JobInfo(JobStatus.SUCCEEDED, json.loads(answer.body)["url"], word="success")


@pytest.mark.parametrize(
    ("document", "info"),
    [
        ({"status": "working"}, JobInfo(JobStatus.WORKING, word="working")),
        ({"url": "", "status": "working"}, JobInfo(JobStatus.WORKING, word="working")),
        ({"status": "fail"}, JobInfo(JobStatus.FAILED, word="fail")),
        ({"url": "", "status": "fail"}, JobInfo(JobStatus.FAILED, word="fail")),
        ({"status": "success", "url": URL}, JobInfo(JobStatus.SUCCEEDED, URL, word="success")),
        ({"status": "success"}, JobInfo(JobStatus.SUCCEEDED, word="success")),
        ({"status": "success", "url": None}, JobInfo(JobStatus.SUCCEEDED, word="success")),
        ({"status": "sucess", "url": URL}, JobInfo(JobStatus.SUCCEEDED, URL, word="sucess")),
        ({"status": "Success"}, JobInfo(JobStatus.UNKNOWN, word="Success")),
        ({"status": "running"}, JobInfo(JobStatus.UNKNOWN, word="running")),
        ({"status": ""}, JobInfo(JobStatus.UNKNOWN, word="")),
        ({"status": "working", "more": {"a": [1]}}, JobInfo(JobStatus.WORKING, word="working")),
    ],
)
def test_looks_of_the_documented_dialect(document, info):
    assert STATUS_OLD.read(Answer.json(200, document)) == info


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("notassigned", JobStatus.UNASSIGNED),
        ("assigned", JobStatus.ASSIGNED),
        ("datapreparing", JobStatus.PREPARING),
        ("pending", JobStatus.PENDING),
        ("paused", JobStatus.PAUSED),
        ("pausing", JobStatus.PAUSING),
        ("running", JobStatus.RUNNING),
        ("failed", JobStatus.FAILED),
        ("succeeded", JobStatus.SUCCEEDED),
        ("stopped", JobStatus.STOPPED),
        ("success", JobStatus.UNKNOWN),
        ("", JobStatus.UNKNOWN),
    ],
)
def test_looks_of_the_newer_dialect(word, status):
    assert STATUS_NEW.read(Answer.json(200, {"job_id": ID, "status": word})) == JobInfo(status, word=word)


def test_a_look_tells_when_it_arrived():
    arrived = datetime(2024, 1, 2, tzinfo=UTC)
    body = b'{"status":"working"}'
    assert STATUS_OLD.read(Answer(200, body=body, received_at=arrived)).observed_at == arrived


@pytest.mark.parametrize("call", [stop_job(OLD, ID), stop_job(NEW, ID), delete_job(OLD, ID), delete_job(NEW, ID)])
@pytest.mark.parametrize(
    "answer",
    [
        Answer(200),
        Answer(200, body=b"\n"),
        Answer.json(200, {"message": "delete job success"}),
        Answer.json(200, {"message": f"job_name: {ID} stopped"}),
        Answer.json(200, {"message": f"job_name: {ID} is already stopped"}),
    ],
)
def test_every_way_to_say_yes_to_a_stop_is_a_yes(call, answer):
    assert call.read(answer) is None


def test_the_java_servers_listing():
    mark = "https://callbacks.example/sxwl/3f0c/done"
    assert list_jobs(OLD).read(Answer(200, body=sample("listing_java.json"))) == (
        JobListing(ID, JobInfo(JobStatus.WORKING, word="0"), mark),
        JobListing("ai81e6f92e-f1dd-4033-910e-ceafbf7991db", JobInfo(JobStatus.SUCCEEDED, word="3")),
        JobListing("ai07746341-aa8d-4d7d-96b3-986d2ab8b61f", JobInfo(JobStatus.FAILED, word="1")),
        JobListing("ai07746341-aa8d-4d7d-96b3-986d2ab8b620", JobInfo(JobStatus.WORKING, word="2")),
    )


def test_the_newer_listing():
    assert list_jobs(NEW).read(Answer(200, body=sample("listing_go.json"))) == (
        JobListing(
            "train-1f6c0d5e-7f1c-4a33-8b92-0d2f6e0a9a11", JobInfo(JobStatus.RUNNING, word="running"), "mark-3f0c"
        ),
        JobListing("train-2a6c0d5e-7f1c-4a33-8b92-0d2f6e0a9a12", JobInfo(JobStatus.UNKNOWN, word="77")),
    )


@pytest.mark.parametrize(
    ("row", "listed"),
    [
        ({"jobName": ID}, JobListing(ID, JobInfo(JobStatus.UNKNOWN))),
        ({"jobName": ID, "workStatus": 9}, JobListing(ID, JobInfo(JobStatus.UNKNOWN, word="9"))),
        ({"jobName": ID, "jsonAll": "not JSON"}, JobListing(ID, JobInfo(JobStatus.UNKNOWN))),
        ({"jobName": ID, "jsonAll": '{"callbackUrl": 7}'}, JobListing(ID, JobInfo(JobStatus.UNKNOWN))),
        ({"jobName": ID, "jsonAll": '{"callbackUrl": ""}'}, JobListing(ID, JobInfo(JobStatus.UNKNOWN))),
        ({"jobName": ID, "jsonAll": "[]"}, JobListing(ID, JobInfo(JobStatus.UNKNOWN))),
    ],
)
def test_rows_that_say_little_are_listed_with_what_they_say(row, listed):
    assert list_jobs(OLD).read(Answer.json(200, {"content": [row]})) == (listed,)


def test_an_empty_page_is_empty():
    assert list_jobs(NEW).read(Answer.json(200, {"content": [], "totalElements": 9})) == ()


@pytest.mark.parametrize(
    ("rows", "kinds"),
    [
        ([], ()),
        ([{"amount": 7.0, "cpodId": None, "gpuProd": "B"}, {"gpuProd": "A"}], (GpuType("A"), GpuType("B", 7.0))),
        (
            [
                {"amount": 6, "gpuProd": "A", "gpuAllocatable": 2},
                {"amount": 6, "gpuProd": "A", "gpuAllocatable": 8},
                {"amount": 6, "gpuProd": "A", "gpuAllocatable": 0},
            ],
            (GpuType("A", 6.0, 8),),
        ),
    ],
)
def test_each_kind_of_gpu_is_told_once_with_the_most_that_one_machine_has_free(rows, kinds):
    assert gpu_types(NEW).read(Answer.json(200, rows)) == kinds


# Refusals ------------------------------------------------------------------------------------------------------------

NO_ROWS = "sql: no rows in result set"
QUOTA = "JobCreate CheckQuota userId: user-1 gpu: A100 left: 0 need: 1"


NO_SUCH = [
    (text(400, NO_ROWS + "\n"), NO_ROWS),
    (Answer.json(400, {"message": NO_ROWS}), NO_ROWS),
    (Answer.json(400, {"message": "数据库查询错误"}), "数据库查询错误"),
]


@pytest.mark.parametrize(("answer", "message"), NO_SUCH)
@pytest.mark.parametrize("call", REPEATABLE[:4], ids=name)
def test_what_is_not_there_is_not_found(call, answer, message):
    with pytest.raises(NotFound) as caught:
        call.read(answer)
    assert caught.value.message == message


@pytest.mark.parametrize(("answer", "message"), NO_SUCH)
@pytest.mark.parametrize("call", REPEATABLE[4:], ids=name)
def test_what_is_no_question_about_one_job_is_not_answered_by_there_is_none(call, answer, message):
    with pytest.raises(ServerFailed, match=message):
        call.read(answer)


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (Answer.json(400, {"message": "无权访问该任务"}), Denied, "无权访问该任务"),
        (Answer.json(400, {"message": 'field "job_id" is not set'}), InvalidData, 'field "job_id" is not set'),
        (
            text(400, 'type mismatch for field "job_id", expect "string", actual "number"\n'),
            InvalidData,
            'type mismatch for field "job_id", expect "string", actual "number"',
        ),
        (java("服务器维护"), ServiceError, "服务器维护"),
        (text(401, "Unauthorized: token contains an invalid number of segments\n"), Unauthorized, None),
        (text(401, "Unauthorized\n"), Unauthorized, "Unauthorized"),
        (Answer(401), Unauthorized, ""),
        (
            Answer.json(401, {"timestamp": "…", "status": 401, "error": "Unauthorized", "message": "no"}),
            Unauthorized,
            "no",
        ),
        (Answer.json(403, {"message": "不允许访问"}), Denied, "不允许访问"),
        (Answer(413), InvalidData, ""),
        (Answer(429), RateLimited, ""),
        (Answer(422), ServiceError, ""),
    ],
)
@pytest.mark.parametrize("call", REPEATABLE, ids=name)
def test_a_refusal_is_told_by_its_status_and_its_text(call, answer, error, message):
    with pytest.raises(ServiceError) as caught:
        call.read(answer)
    assert type(caught.value) is error
    assert caught.value.code == answer.status
    assert caught.value.call == call.name
    assert message is None or caught.value.message == message


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (Answer.json(400, {"message": "余额不足"}), QuotaExceeded, "余额不足"),
        (Answer.json(400, {"message": QUOTA}), QuotaExceeded, QUOTA),
        (Answer.json(400, {"message": NO_ROWS}), QuotaExceeded, NO_ROWS),
        (text(400, 'type mismatch for field "stopType", expect "string", actual "number"\n'), InvalidData, None),
        (text(400, 'type mismatch for field "stopTime"\n'), InvalidData, None),
        (text(400, 'field "gpuType" is not set\n'), InvalidData, None),
        (Answer.json(400, {"message": 'field "created_model_path" is not set'}), InvalidData, None),
        (text(400, 'field "gpuType" mustn\'t be nil\n'), InvalidData, None),
        (text(400, 'strconv.Atoi: parsing "10G": invalid syntax\n'), InvalidData, None),
        (java('For input string: "10G"'), InvalidData, 'For input string: "10G"'),
        (java("Cannot parse null string"), InvalidData, None),
        (
            Answer.json(400, {"message": "Error 1406 (22001): Data too long for column 'callback_url'"}),
            InvalidData,
            None,
        ),
        (text(400, "something new"), ServiceError, "something new"),
        (text(401, "Unauthorized\n"), Unauthorized, "Unauthorized"),
        (Answer(403), Denied, ""),
        (Answer(413), InvalidData, ""),
        (Answer(429), RateLimited, ""),
    ],
)
def test_a_refused_create_is_told_by_its_status_and_its_text(answer, error, message):
    with pytest.raises(ServiceError) as caught:
        CREATE.read(answer)
    assert type(caught.value) is error
    assert caught.value.code == answer.status
    assert message is None or caught.value.message == message


TROUBLES = [
    (Answer.json(400, {"message": "context deadline exceeded"}), "context deadline exceeded"),
    (Answer.json(400, {"message": "dial tcp 10.0.0.1:3306: connect: connection refused"}), "connection refused"),
    (Answer.json(400, {"message": "系统错误，请稍后再试"}), "系统错误"),
    (java("Communications link failure"), "link failure"),
    (text(500, "Error forwarding request\n"), "Error forwarding request"),
    (text(500, "<html><body>error page</body></html>", "text/html"), "error page"),
    (text(503, "Request Timeout"), "Request Timeout"),
    (Answer(503), "503"),
    (Answer(502), "502"),
]


@pytest.mark.parametrize(("answer", "says"), TROUBLES)
@pytest.mark.parametrize("call", REPEATABLE, ids=name)
def test_the_servers_own_trouble_is_a_failure_that_may_pass(call, answer, says):
    with pytest.raises(ServerFailed, match=says) as caught:
        call.read(answer)
    assert (caught.value.status, caught.value.call) == (answer.status, call.name)


@pytest.mark.parametrize(("answer", "says"), TROUBLES)
def test_the_servers_own_trouble_may_have_made_a_job(answer, says):
    with pytest.raises(OutcomeUnknown, match=says) as caught:
        CREATE.read(answer)
    assert "may exist all the same" in str(caught.value)


@pytest.mark.parametrize("call", [STATUS_OLD, STATUS_NEW], ids=["old", "new"])
def test_an_empty_document_is_no_job_and_not_a_working_one(call):
    with pytest.raises(NotFound, match=ID):
        call.read(Answer.json(200, {}))


def test_not_found_by_a_database_error_says_that_it_may_be_one():
    with pytest.raises(NotFound, match="or the cloud's database failed"):
        STATUS_NEW.read(Answer.json(400, {"message": "数据库查询错误"}))


def test_a_token_without_a_user_is_said_to_be_too_old():
    with pytest.raises(Unauthorized, match="before May 2024"):
        STATUS_NEW.read(text(401, "Unauthorized\n"))


# Answers that no server of these gives -------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ALL, ids=name)
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (text(404, "404 page not found\n"), r"no such call \(404\): it speaks another dialect"),
        (Answer(405, (("allow", "POST"),)), r"no such call \(405\).*lacks its /api"),
        (text(200, "<!DOCTYPE html><html></html>", "text/html"), "web page: the base URL probably lacks its /api"),
        (text(200, "\n <html></html>"), "web page"),
        (Answer(302, (("location", "https://llm.sxwl.ai/"),)), "is a 302"),
        (Answer(204), "is a 204"),
        (text(200, "ok"), "is not JSON"),
        (Answer.json(200, 7), "Expected"),
        (Answer.json(200, None), "Expected"),
        (Answer.json(200, ["a"]), "Expected"),
    ],
)
def test_an_answer_against_the_protocol_is_unexpected_and_says_what_to_check(call, answer, says):
    with pytest.raises(UnexpectedAnswer, match=says) as caught:
        call.read(answer)
    assert caught.value.call == call.name


@pytest.mark.parametrize("call", [CREATE, STATUS_OLD, STATUS_NEW, list_jobs(OLD), gpu_types(OLD)], ids=name)
def test_an_empty_answer_is_unexpected_where_a_document_belongs(call):
    with pytest.raises(UnexpectedAnswer, match="is empty"):
        call.read(Answer(200))


@pytest.mark.parametrize(
    ("call", "document", "says"),
    [
        (CREATE, {}, "missing required field `job_id`"),
        (CREATE, {"job_id": 123}, r"\$\.job_id"),
        (CREATE, {"job_id": None}, r"\$\.job_id"),
        (CREATE, {"job_id": ""}, "not a job's id"),
        (CREATE, {"job_id": "a/../b"}, "not a job's id"),
        (STATUS_OLD, {"url": ""}, "missing required field `status`"),
        (STATUS_OLD, {"status": None}, r"\$\.status"),
        (STATUS_OLD, {"status": 3}, r"\$\.status"),
        (STATUS_OLD, {"status": "success", "url": 7}, r"\$\.url"),
        (STATUS_OLD, {"message": "hello"}, "missing required field `status`"),
        (STATUS_NEW, {"job_id": "train-of-another", "status": "running"}, f"about another job than {ID}"),
        (stop_job(OLD, ID), {"status": "working"}, "missing required field `message`"),
        (list_jobs(OLD), {}, "missing required field `content`"),
        (list_jobs(OLD), {"content": None}, r"\$\.content"),
        (list_jobs(OLD), {"content": [{"jobName": 7}]}, r"\$\.content\[0\]\.jobName"),
        (list_jobs(NEW), {"content": [{"jobName": "a", "workStatus": True}]}, "workStatus"),
        (gpu_types(OLD), [{"amount": 7}], "missing required field `gpuProd`"),
        (gpu_types(NEW), [{"gpuProd": "A", "gpuAllocatable": "8.5"}], "gpuAllocatable"),
        (gpu_types(NEW), [{"gpuProd": "A", "gpuAllocatable": "eight"}], "gpuAllocatable"),
        (gpu_types(NEW), [{"gpuProd": "A", "amount": "nan"}], "amount"),
        (gpu_types(NEW), [{"gpuProd": "A", "amount": True}], "amount"),
        (list_jobs(OLD), {"content": [{"jobName": "a", "workStatus": ""}]}, "workStatus"),
    ],
)
def test_a_document_of_another_shape_is_unexpected_and_the_field_is_named(call, document, says):
    with pytest.raises(UnexpectedAnswer, match=says):
        call.read(Answer.json(200, document))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/data.zip?Signature=s3cret",
        "//h/data.zip?Signature=s3cret",
        "data.zip?Signature=s3cret",
        "https:///data.zip?Signature=s3cret",
        "https://[h/data.zip?Signature=s3cret",
        "https://h:99999999/data.zip?Signature=s3cret",
        "https://h/a\nhttps://h/b?Signature=s3cret",
        "javascript:alert('s3cret')",
    ],
)
def test_a_url_that_cannot_be_fetched_is_unexpected_and_not_repeated(url):
    with pytest.raises(UnexpectedAnswer, match="http or https") as caught:
        STATUS_OLD.read(Answer.json(200, {"status": "success", "url": url}))
    assert "s3cret" not in everything(caught.value)


def test_a_number_may_come_as_a_string_where_a_number_belongs():
    rows = [{"gpuProd": "A", "amount": "6.5", "gpuAllocatable": "8"}, {"gpuProd": "A", "gpuAllocatable": 3}]
    assert gpu_types(NEW).read(Answer.json(200, rows))[0].free == 8
    assert gpu_types(NEW).read(Answer.json(200, rows[:1])) == (GpuType("A", 6.5, 8),)
    (listing,) = list_jobs(OLD).read(Answer.json(200, {"content": [{"jobName": "a", "workStatus": "3"}]}))
    assert (listing.info.status, listing.info.word) == (JobStatus.SUCCEEDED, "3")


def test_what_is_passed_over_may_be_anything():
    huge, deep = b"9" * 5000, b"[" * 500 + b"]" * 500
    for odd in (huge, b"-1e999", deep):
        body = b'{"status": "working", "progress": ' + odd + b"}"
        assert STATUS_OLD.read(Answer(200, body=body)).status is JobStatus.WORKING


@pytest.mark.parametrize("body", [b"{}", b" { \r\n} ", b"\xef\xbb\xbf{}"])
def test_an_answer_of_nothing_means_an_unknown_job_however_it_is_spaced(body):
    with pytest.raises(NotFound):
        STATUS_OLD.read(Answer(200, body=body))


@pytest.mark.parametrize("cut", range(10, 15))
def test_an_answer_cut_anywhere_in_a_character_is_known_to_be_cut(cut):
    body = '{"status":"运行"}'.encode()
    with pytest.raises(UnexpectedAnswer) as caught:
        STATUS_OLD.read(Answer(200, body=body[:cut]))
    assert caught.value.is_cut


@pytest.mark.parametrize(
    ("call", "body"),
    [
        (list_jobs(OLD), b'{"content":[' + b"{}," * 2_000_000 + b"{}]}"),
        (gpu_types(OLD), b"[" + b"{}," * 2_000_000 + b"{}]"),
    ],
    ids=["list_jobs", "gpu_types"],
)
def test_millions_of_rows_are_refused_unread(call, body):
    with pytest.raises(UnexpectedAnswer, match="more rows than any page"):
        call.read(Answer(200, body=body))


MEGABYTE = "syntax error \x1b[31m\x07 坏" * 60_000


@pytest.mark.parametrize("body", [MEGABYTE, json.dumps({"message": MEGABYTE})], ids=["text", "json"])
def test_a_refusal_of_a_megabyte_is_cut_and_may_be_shown(body):
    with pytest.raises(InvalidData) as caught:
        CREATE.read(text(400, body))
    assert len(str(caught.value)) < 8000
    assert "\x1b" not in str(caught.value)


# What an error must not tell -----------------------------------------------------------------------------------------


def everything(error):
    return "\n".join([*traceback.format_exception(error), repr(error), repr(vars(error))])


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"status": 7, "url": URL}),
        json.dumps({"status": 7, "url": URL}).replace("/", "\\/"),
        json.dumps({"status": 7, "url": URL}).replace("&", "\\u0026"),
        json.dumps({"status": 7, "url": URL.replace("https", "HTTPS")}),
        json.dumps({"status": "success", "url": URL})[:-20],
        f"<html>{URL}</html>",
    ],
)
def test_no_error_tells_the_query_of_a_signed_url(body):
    with pytest.raises(UnexpectedAnswer) as caught:
        STATUS_OLD.read(Answer(200, body=body.encode()))
    shown = everything(caught.value)
    assert "s3cret" not in shown
    assert "OSSAccessKeyId" not in shown


@pytest.mark.parametrize("status", [400, 401, 404, 500])
@pytest.mark.parametrize("call", ALL, ids=name)
def test_no_refusal_tells_the_query_of_a_signed_url(call, status):
    with pytest.raises(GtsAsyncError) as caught:
        call.read(text(status, f"no such file: {URL}"))
    assert "s3cret" not in everything(caught.value)


def test_an_unreadable_listing_does_not_tell_what_the_jobs_were_made_with():
    body = sample("listing_java.json").replace(b'"workStatus": 0', b'"workStatus": true')
    with pytest.raises(UnexpectedAnswer, match="workStatus") as caught:
        list_jobs(OLD).read(Answer(200, body=body))
    assert "s3cret" not in everything(caught.value)


def test_a_listing_that_was_cut_off_is_known_to_be_cut():
    with pytest.raises(UnexpectedAnswer) as caught:
        list_jobs(OLD).read(Answer(200, body=sample("listing_java.json")[:-40]))
    assert caught.value.is_cut


# Anything at all -----------------------------------------------------------------------------------------------------

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["status", "url", "job_id", "message", "content", "jobName", "jsonAll", "workStatus", "gpuProd"]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
bodies = st.binary(max_size=200) | documents.map(lambda document: json.dumps(document).encode())
statuses = st.sampled_from([200, 200, 200, 204, 302, 400, 401, 403, 404, 405, 413, 429, 500, 503]) | st.integers(
    100, 599
)


@pytest.mark.parametrize("call", ALL, ids=name)
@given(status=statuses, body=bodies)
def test_only_our_errors_come_of_any_answer(call, status, body):
    try:
        value = call.read(Answer(status, body=body))
    except (UnexpectedAnswer, ServiceError, ServerFailed, OutcomeUnknown) as error:
        outcome = error.call
    else:
        outcome = call.name
        assert status == 200
        assert value is None or isinstance(value, (str, JobInfo, tuple))
    assert outcome == call.name
