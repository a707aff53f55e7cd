"""Callbacks: their bytes in each form, when they come, and when none does."""

import json

import pytest

from gts_async.emulator.backends import JobStage
from gts_async.emulator.cloud import CallbackForm, Cloud, CloudQuirks, Generation
from gts_async.emulator.cloud_callbacks import go_target
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.wire import Request

NOW = 1_703_203_200.0
BODY = {
    "gpuNumber": 1, "gpuType": "NVIDIA-GeForce-RTX-3090", "ckptPath": "/ckpt", "ckptVol": "100", "modelPath": "/model",
    "modelVol": "200", "imagePath": "image", "jobType": "GeneralJob", "stopType": "0",
    "callbackUrl": "https://me/cb?token=b&a=1",
}  # fmt: skip
OLD = [Generation.JAVA, Generation.GO]
FAILING = JobStage.FAILED


def cloud(outcome=JobStage.UPLOADED, generation=Generation.JAVA, **quirks):
    store = ObjectStore(b"secret", "https://h")
    runner = ScriptedRunner(outcome=outcome, packing=30)
    return Cloud(runner, store, token="t", generation=generation, quirks=CloudQuirks(**quirks))


def post(path, document):
    headers = (("content-type", "application/json"), ("authorization", "Bearer t"))
    return Request("POST", path, headers=headers, body=json.dumps(document).encode())


def create(kept, **changes):
    return json.loads(kept.answer(post("/api/userJob", BODY | changes), NOW).body)["job_id"]


def url(kept, job_id, now):
    return json.loads(kept.answer(post("/api/userJob/job_status", {"job_id": job_id}), now).body)["url"]


@pytest.mark.parametrize("generation", OLD)
def test_gos_success_names_the_job_as_jobid_and_escapes_the_url(generation):
    kept = cloud(generation=generation)
    job_id = create(kept)
    assert kept.callbacks(NOW + 99) == ()
    (sent,) = kept.callbacks(NOW + 100)
    escaped = url(kept, job_id, NOW + 100).replace("&", "\\u0026")
    assert sent.body.decode() == f'{{"jobId":"{job_id}","status":"success","url":"{escaped}"}}\n'
    assert sent.url == "https://me/cb?a=1&token=b"
    assert dict(sent.headers)["content-type"] == "application/json; charset=utf-8"
    assert dict(sent.headers)["user-agent"] == "Go-http-client/1.1"


@pytest.mark.parametrize("generation", OLD)
def test_gos_failure_does_not_name_the_job(generation):
    kept = cloud(FAILING, generation)
    create(kept)
    (sent,) = kept.callbacks(NOW + 70)
    assert sent.body == b'{"jobId":"","status":"fail","url":""}\n'


def test_javas_callbacks_go_to_the_url_as_it_is():
    kept = cloud(callbacks=CallbackForm.JAVA)
    job_id = create(kept)
    (sent,) = kept.callbacks(NOW + 100)
    expected = f'{{"jobId":"{job_id}","url":"{url(kept, job_id, NOW + 100)}","status":"success"}}'
    assert (sent.url, sent.body.decode()) == ("https://me/cb?token=b&a=1", expected)
    assert dict(sent.headers)["content-type"] == "application/json"


def test_javas_failure_has_no_id_at_all():
    kept = cloud(FAILING, callbacks=CallbackForm.JAVA)
    create(kept)
    assert kept.callbacks(NOW + 70)[0].body == b'{"status":"fail"}'


@pytest.mark.parametrize("outcome", [JobStage.UPLOADED, FAILING])
def test_the_documented_form_spells_job_id(outcome):
    kept = cloud(outcome, callbacks=CallbackForm.DOCUMENTED)
    job_id = create(kept)
    document = json.loads(kept.callbacks(NOW + 100)[0].body)
    assert (document["job_id"], document["status"]) == (job_id, "fail" if outcome is FAILING else "success")


def test_a_callback_is_given_once():
    kept = cloud()
    create(kept)
    assert len(kept.callbacks(NOW + 1000)) == 1
    assert kept.callbacks(NOW + 2000) == ()


def test_the_status_has_changed_when_the_callback_comes():
    kept = cloud(FAILING)
    job_id = create(kept)
    for at in range(0, 200, 5):
        if kept.callbacks(NOW + at):
            break
    answer = kept.answer(post("/api/userJob/job_status", {"job_id": job_id}), NOW + at)
    assert answer.text == '{"status":"fail"}'


def test_a_failure_that_becomes_a_success_gives_two():
    kept = cloud(fails_first=True)
    create(kept)
    assert [json.loads(sent.body)["status"] for sent in kept.callbacks(NOW + 1000)] == ["fail", "success"]


@pytest.mark.parametrize("copies", [0, 1, 3])
def test_callbacks_may_be_doubled_or_lost(copies):
    kept = cloud(callback_copies=copies)
    create(kept)
    assert len(set(kept.callbacks(NOW + 1000))) == min(copies, 1)
    other = cloud(callback_copies=copies)
    create(other)
    assert len(other.callbacks(NOW + 1000)) == copies


def test_callbacks_may_be_late():
    kept = cloud(callback_delay=50.0)
    create(kept)
    assert kept.callbacks(NOW + 149) == ()
    assert len(kept.callbacks(NOW + 150)) == 1


@pytest.mark.parametrize("generation", OLD)
def test_a_deleted_job_sends_none(generation):
    kept = cloud(generation=generation)
    job_id = create(kept)
    kept.answer(post("/api/userJob/job_del", {"job_id": job_id}), NOW + 75)
    assert kept.callbacks(NOW + 1000) == ()


@pytest.mark.parametrize("missing", [{"callbackUrl": ""}, {"callbackUrl": None}])
def test_without_a_url_there_is_none(missing):
    kept = cloud()
    create(kept, **missing)
    assert kept.callbacks(NOW + 1000) == ()


@pytest.mark.parametrize("form", list(CallbackForm))
@pytest.mark.parametrize("url", ["https://mark.invalid/#gts-1", "http://a.invalid", "HTTP://x.invalid:80/a?b"])
def test_to_a_host_that_cannot_be_there_none_is_sent(form, url):
    kept = cloud(callbacks=form)
    create(kept, callbackUrl=url)
    create(kept, callbackUrl="https://h/invalid/#.invalid/")
    assert len(kept.callbacks(NOW + 1000)) == 1


def test_without_a_file_row_go_sends_none_and_java_one_without_id():
    kept = cloud(url_delay=1.0)
    create(kept)
    assert kept.callbacks(NOW + 1000) == ()
    other = cloud(url_delay=1.0, callbacks=CallbackForm.JAVA)
    create(other)
    assert other.callbacks(NOW + 1000)[0].body == b'{"status":"success"}'


@pytest.mark.parametrize(
    ("given", "called"),
    [
        ("http://h/cb", "http://h/cb"),
        ("HTTP://h:8080/cb", "http://h:8080/cb"),
        ("http://h", "http://h"),
        ("http://h/a%2Fb/c", "http://h/a%2Fb/c"),
        ("http://h/cb?b=2&a=1&b=1", "http://h/cb?a=1&b=2&b=1"),
        ("http://h/cb?x=a%20b+c&y=%2F/", "http://h/cb?x=a+b+c&y=%2F%2F"),
        ("http://h/cb?flag&&empty=", "http://h/cb?empty=&flag="),
        ("http://h/cb?k=中", "http://h/cb?k=%E4%B8%AD"),
        ("http://h/cb?a=1;b=2&c=3", "http://h/cb?c=3"),
        ("http://h/cb?a=%zz&c=3", "http://h/cb?c=3"),
        ("http://h/cb#part", "http://h/cb"),
        ("http://h/:name/cb", None),
        ("http://h/%zz", None),
        ("http:///cb", None),
        ("ftp://h/cb", None),
        ("h/cb", None),
        ("/cb", None),
        ("http://h/a b", None),
        ("", None),
    ],
)
def test_go_calls_the_url_with_its_query_written_anew(given, called):
    assert go_target(given) == called
