"""What stands before the API in each generation: tokens, sizes, the website, and faults that only it can time."""

import base64
import json

import pytest
from hypothesis import given, settings, strategies as st

from gts_async.emulator.cloud import DROPPED, Cloud, CloudQuirks, Generation
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.wire import Request

NOW = 1_703_203_200.0
JAVA, GO, HEAD = Generation
HEADER = base64.urlsafe_b64encode(b'{"alg":"HS512"}').decode().rstrip("=")
TOKEN = f"{HEADER}.claims.signature"
OTHER = f"{HEADER}.claims.forged"
COMMON = {"gpuNumber": 1, "gpuType": "NVIDIA-GeForce-RTX-3090", "ckptPath": "/c", "imagePath": "i"}
OLD = {**COMMON, "ckptVol": "1", "modelPath": "/m", "modelVol": "1", "jobType": "MPI", "stopType": "0"}
NEW = {**COMMON, "ckptVol": 1, "created_model_path": "/m", "created_model_vol": 1, "jobType": "mpi"}
CREATE = {JAVA: ("/api/userJob", OLD), GO: ("/api/userJob", OLD), HEAD: ("/api/job/training", NEW)}


def cloud(generation, token=TOKEN, others=(), **quirks):
    store = ObjectStore(b"secret", "https://h")
    quirks = CloudQuirks(**quirks)
    return Cloud(ScriptedRunner(), store, token=token, generation=generation, quirks=quirks, other_tokens=others)


def post(path, document, authorization=f"Bearer {TOKEN}"):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers = [("content-type", "application/json")]
    if authorization is not None:
        headers.append(("authorization", authorization))
    return Request("POST", path, headers=tuple(headers), body=body)


def create(kept, generation, authorization=f"Bearer {TOKEN}"):
    return kept.answer(post(*CREATE[generation], authorization), NOW)


def ask(kept, job_id="x", now=NOW):
    return kept.answer(post("/api/userJob/job_status", {"job_id": job_id}), now)


GOOD, SEGMENTS, SIGNATURE = "good", "token contains an invalid number of segments", "signature is invalid"


@pytest.mark.parametrize("generation", [GO, HEAD])
@pytest.mark.parametrize(
    ("authorization", "problem"),
    [
        (f"Bearer {TOKEN}", GOOD),
        (TOKEN, GOOD),
        (None, SEGMENTS),
        ("", SEGMENTS),
        ("Bearer ", SEGMENTS),
        ("Bearer nonsense", SEGMENTS),
        (f"Bearer {OTHER}", SIGNATURE),
        (OTHER, SIGNATURE),
        (f"bearer {TOKEN}", "tokenstring should not contain 'bearer '"),
        (f"Bearer Bearer {TOKEN}", "tokenstring should not contain 'bearer '"),
        (f"Basic {TOKEN}", "illegal base64 data at input byte 5"),
    ],
)
def test_gos_gateway_takes_one_bearer_off_and_parses_the_rest(generation, authorization, problem):
    answer = create(cloud(generation), generation, authorization)
    if problem is GOOD:
        assert answer.status == 200
    else:
        assert (answer.status, answer.text) == (401, f"Unauthorized: {problem}\n")
        assert answer.header("content-type") == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"Bearer Bearer {TOKEN}", 200),
        (TOKEN, 401),
        (f"bearer {TOKEN}", 401),
        (None, 401),
        ("Bearer  ", 401),
        (f"Bearer {OTHER}", 401),
        ("Bearer nonsense", 500),
    ],
)
def test_javas_filter_wants_the_prefix_and_fails_over_what_is_no_token(authorization, status):
    answer = create(cloud(JAVA), JAVA, authorization)
    assert answer.status == status
    if status == 401:
        assert answer.body == b""


@pytest.mark.parametrize("generation", list(Generation))
def test_without_tokens_everybody_is_let_in(generation):
    assert create(cloud(generation, token=None), generation, None).status == 200


@pytest.mark.parametrize("generation", list(Generation))
def test_a_token_may_be_any_text(generation):
    kept = cloud(generation, token="plain", others=("second",))
    assert create(kept, generation, "Bearer plain").status == 200
    assert create(kept, generation, "Bearer second").status == 200
    assert create(kept, generation, "Bearer third").status in (401, 500)


def test_an_old_token_is_good_until_head():
    for generation, expected in ((JAVA, 200), (GO, 200), (HEAD, 401)):
        answer = create(cloud(generation, outdated_tokens={"a.b.c"}), generation, "Bearer a.b.c")
        assert answer.status == expected
    assert answer.text == "Unauthorized\n"


@pytest.mark.parametrize("generation", list(Generation))
@pytest.mark.parametrize("path", ["/", "/userJob", "/job/training", "/api%2", "/index.html"])
def test_a_wrong_base_path_is_the_website_for_reading_and_405_for_the_rest(generation, path):
    kept = cloud(generation)
    path = path.replace("%2", "").replace("/api", "/ap")
    page = kept.answer(Request("GET", path), NOW)
    assert (page.status, page.header("content-type")) == (200, "text/html")
    assert page.text.startswith("<!DOCTYPE html>")
    assert kept.answer(Request("HEAD", path), NOW).body == b""
    assert kept.answer(post(path, OLD), NOW).status == 405


@pytest.mark.parametrize("path", ["/api", "/apix", "/auth", "/auth/login"])
def test_a_path_that_heads_gateway_has_no_route_for_drops_the_connection(path):
    assert cloud(HEAD).answer(post(path, NEW), NOW) is DROPPED
    assert DROPPED.status == 0


@pytest.mark.parametrize(("generation", "body"), [(JAVA, "Request Entity Too Large"), (GO, ""), (HEAD, "")])
def test_more_than_a_mebibyte_is_too_large(generation, body):
    kept = cloud(generation)
    assert kept.answer(post("/api/userJob/job_status", b" " * (1 << 20)), NOW).status == 400
    answer = kept.answer(post("/api/userJob/job_status", b" " * ((1 << 20) + 1)), NOW)
    assert answer.status == 413
    assert body in answer.text
    assert bool(body) == bool(answer.body)


@pytest.mark.parametrize("generation", list(Generation))
def test_shed_requests_are_a_503_and_not_looked_at(generation):
    kept = cloud(generation, overloaded=[1, 3])
    answers = [create(kept, generation) for _ in range(4)]
    assert [answer.status for answer in answers] == [503, 200, 503, 200]
    assert answers[0].header("retry-after") is None
    assert (answers[0].body == b"") == (generation is not JAVA)


@pytest.mark.parametrize(
    ("generation", "status", "text"),
    [(JAVA, 502, "Bad Gateway"), (GO, 500, "Error forwarding request\n"), (HEAD, 500, "Error forwarding request\n")],
)
def test_an_unreachable_server_is_the_gateways_error_and_nothing_is_done(generation, status, text):
    kept = cloud(generation, unreachable=[1])
    answer = create(kept, generation)
    assert answer.status == status
    assert text in answer.text
    assert create(kept, generation).status == 200
    assert create(kept, generation, None).status == 401


@pytest.mark.parametrize(
    ("generation", "status", "text"),
    [
        (JAVA, 504, "504 Gateway Time-out"),
        (GO, 503, "Request Timeout"),
        (HEAD, 400, '{"message":"context deadline exceeded"}'),
    ],
)
def test_a_create_that_times_out_has_been_carried_out(generation, status, text):
    kept = cloud(generation, timed_out_creates=[2])
    assert create(kept, generation).status == 200
    answer = create(kept, generation)
    assert answer.status == status
    assert text in answer.text
    assert numbers(kept, generation) == [2, 1]


@pytest.mark.parametrize("generation", list(Generation))
def test_a_create_whose_connection_ends_has_been_carried_out(generation):
    kept = cloud(generation, dropped_creates=[1])
    assert kept.answer(post(CREATE[generation][0], {}), NOW).status == 400
    assert create(kept, generation) is DROPPED
    assert create(kept, generation).status == 200
    assert numbers(kept, generation) == [2, 1]


@pytest.mark.parametrize("generation", list(Generation))
def test_what_is_lost_is_only_ever_a_create(generation):
    kept = cloud(generation, dropped_creates=range(1, 100), timed_out_creates=range(1, 100))
    assert ask(kept).status in (200, 400)
    assert ask(kept).text.strip() in ("{}", "sql: no rows in result set", '{"message":"sql: no rows in result set"}')


def numbers(kept, generation):
    headers = (("authorization", f"Bearer {TOKEN}"),)
    request = Request("GET", CREATE[generation][0], (("current", "1"), ("size", "10")), headers)
    return [row["jobId"] for row in json.loads(kept.answer(request, NOW).body)["content"]]


@pytest.mark.parametrize("generation", list(Generation))
def test_texts_that_utf8_cannot_hold_do_no_harm(generation):
    kept = cloud(generation)
    path, body = CREATE[generation]
    created = kept.answer(post(path, body | {"imagePath": "\ud800", "callbackUrl": "http://h/\ud800"}), NOW)
    assert created.status == 200
    assert numbers(kept, generation) == [1]
    assert kept.callbacks(NOW + 1000) == ()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20) | st.just("9" * 5000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from([*OLD, *NEW, "job_id", "stopTime", "env", "callbackUrl", "GPU_NUMBER", "workStatus", "cpod_id"])
CALLS = ["/api/userJob", "/api/userJob/job_status", "/api/userJob/job_del", "/api/job/training", "/api/job/gpu/stop",
         "/api/job/finetune", "/api/job/inference", "/api/job/inference/stop", "/api//x", "/", "/%"]  # fmt: skip


@given(
    generation=st.sampled_from(Generation),
    calls=st.lists(st.tuples(st.sampled_from(CALLS), st.dictionaries(NAMES, VALUES), st.booleans()), max_size=4),
    odd=st.binary(max_size=30) | VALUES.map(lambda value: json.dumps(value).encode()),
)
@settings(max_examples=300, deadline=None)
def test_every_request_has_an_answer(generation, calls, odd):
    kept = cloud(generation)
    for number, (path, document, is_filled) in enumerate(calls):
        full = CREATE[generation][1] | document if is_filled else document
        assert kept.answer(post(path, full), NOW + number * 50).status in (200, 400, 404, 405, 500)
    assert kept.answer(post(CREATE[generation][0], odd), NOW + 1000).status == 400
    assert kept.answer(post("/api/userJob/job_status", odd), NOW + 1e5).status in (200, 400)


@pytest.mark.parametrize("generation", list(Generation))
@pytest.mark.parametrize("depth", [300, 600, 900, 100_000])
def test_deep_nesting_is_refused_or_passed_over(generation, depth):
    nested = "[" * depth + "]" * depth
    path, body = CREATE[generation]
    text = json.dumps(body)[:-1] + f', "env": {{"a": 1}}, "x": {nested}}}'
    assert cloud(generation).answer(post(path, text.encode()), NOW).status in (200, 400)
