"""Fences: a base URL that no call can leave, and ids that change no path."""

import json

import pytest

from gts_async import (
    AsyncSession,
    InvalidArgument,
    JobSpec,
    MisuseError,
    OutcomeUnknown,
    UnexpectedAnswer,
    WrongType,
)
from gts_async.testing import chaos
from gts_async.wire import Call, Request

SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image")


def cases(case, *values):
    return [pytest.param(value, id=f"{case} {value!r}"[:60]) for value in values]


# The base URL


@pytest.mark.parametrize("argument", ["engine", "cloud"])
@pytest.mark.parametrize(
    "text",
    cases(
        "K10",
        "//evil.test/api",
        "/api",
        "http:/evil.test",
        "http:evil.test",
        "javascript://evil.test",
        "http://good.test@evil.test/api",
        "http://good.test:pw@evil.test/api",
        "http://@evil.test/api",
        "http://good.test\\@evil.test/api",
        "http://good.test\\.evil.test/api",
        "http://good.test\\evil.test/api",
        "http:\\\\evil.test/api",
        "http://good.test/api\\..\\..",
        "http://bücher.test/api",
        "http://ｅvil.test/api",
        "http://evil。test/api",
        "http://ev\u200bil.test/api",
        "http://evil\u2100.test/api",
        "http://go%6fd.test/api",
        "http://good.test%00.evil.test/api",
        "http://good..test/api",
        "http://-good.test/api",
        "http://" + "a" * 64 + ".test/api",
        "http://127.1/api",
        "http://2130706433/api",
        "http://0x7f000001/api",
        "http://0177.0.0.1/api",
        "http://1.2.3.4.5/api",
        "http://[::1/api",
        "http://[::1]evil.test/api",
        "http://[fe80::1%25eth0]/api",
        "http://[fe80::1%eth0]/api",
        "http://[good.test]/api",
        "http://good.test:0/api",
        "http://good.test:65536/api",
        "http://good.test:-1/api",
        "http://good.test:8O/api",
        "http://good.test:８０/api",
        "http://good.test:80:80/api",
        "http://good.test//evil.test/api",
        "http://good.test/api/../admin",
        "http://good.test/api/..",
        "http://good.test/./api",
        "http://good.test/api/%2e%2e/admin",
        "http://good.test/api/.%2E/admin",
        "http://good.test/api%2f..%2fadmin",
        "http://good.test/api%5cadmin",
        "http://good.test/api%00",
        "http://good.test/%zz",
        "http://good.test/中文",
        "http://good.test/a b",
        "http://good\n.test/api",
        "http://good.test/\tapi",
        "http://good.test/api\x00",
        "http://good.test?x",
        "http://good.test#x",
    ),
)
def test_a_base_url_that_could_be_misread_is_refused_by_name(argument, text):
    with pytest.raises(InvalidArgument) as caught:
        AsyncSession(**{argument: text})
    assert caught.value.argument == argument
    assert caught.value.fix


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("HTTP://Good.Test/Api/", "http://good.test/Api"),
        ("http://good.test:8080", "http://good.test:8080"),
        ("http://xn--bcher-kva.test/api", "http://xn--bcher-kva.test/api"),
        ("http://my_host/v1.2/~me/a%20b/@x", "http://my_host/v1.2/~me/a%20b/@x"),
        ("http://good.test./api", "http://good.test./api"),
        ("https://[2001:DB8::1]:8443/api", "https://[2001:db8::1]:8443/api"),
        ("https://10.0.0.1/...", "https://10.0.0.1/..."),
    ],
    ids="K10 {}".format,
)
def test_a_good_one_is_kept_as_it_is(text, kept):
    assert f" cloud={kept} " in repr(AsyncSession(cloud=text))


async def test_a_wrong_one_in_a_file_is_told_by_its_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gts_async.toml").write_text('cloud = "https://me:SECRET@cloud.test/api"\n')
    session = AsyncSession(engine="http://127.0.0.1:1")
    with pytest.raises(InvalidArgument, match=r"gts_async\.toml \(cloud\)") as caught:
        await session.__aenter__()
    assert "SECRET" not in str(caught.value) + repr(session)


# The path of a call

LEAVING = (
    "http://evil.test/x",
    "https:evil.test",
    "//evil.test/x",
    "\\\\evil.test\\x",
    "@evil.test/x",
    ":80/x",
    ".evil.test/x",
    "x",
    "",
    "/..",
    "/../admin",
    "/x/../../admin",
    "/x/./y",
    "/%2e%2e/admin",
    "/%2E./admin",
    "/x%2f..%2f..%2fadmin",
    "/x\\..\\..\\admin",
    "/x%5c..%5cadmin",
    "/x//evil.test",
    "/x?admin",
    "/x#admin",
    "/x\r\nHost: evil.test",
    "/x\x00",
    "/x y",
    "/é",
)


@pytest.mark.parametrize("path", cases("K10", *LEAVING))
async def test_no_call_leaves_the_base_url(floor, server, path):
    call = Call("fetch", Request("GET", path), lambda answer: None, is_repeatable=True)
    async with floor(server) as this:
        with pytest.raises(MisuseError, match="is not a path below"):
            await this.session._cloud.exchange.send(call)
        assert server.requests == []


async def test_a_call_is_put_below_the_base_urls_path(server):
    call = Call(
        "fetch", Request("GET", "/a/b%20c/", query=(("x", "/../?#&=é"),)), lambda answer: None, is_repeatable=True
    )
    async with AsyncSession(cloud=f"{server.url}/base/api/") as session:
        await session._cloud.exchange.send(call)
    assert server.requests[0].target == "/base/api/a/b%20c/?x=%2F..%2F%3F%23%26%3D%C3%A9"


# Ids

EVIL_IDS = (
    "",
    ".",
    "..",
    "../admin",
    "a/b",
    "/a",
    "a/",
    "a\\b",
    "a?b",
    "a#b",
    "a&job_id=b",
    "a=b",
    "a b",
    "a%2fb",
    "a\nb",
    "a\r\nX-Evil: 1",
    "a\x00",
    "é",
    "a\u2028b",
    "\ud800",
    "a" * 10_240,
)


@pytest.mark.parametrize("evil", cases("E17", *EVIL_IDS))
@pytest.mark.parametrize("dialect", ["2023-12", "2024-04"])
async def test_no_id_of_a_job_changes_a_request(server, dialect, evil):
    async with AsyncSession(cloud=f"{server.url}/api", dialect=dialect) as session:
        with pytest.raises(InvalidArgument):
            session.job(evil)
        with pytest.raises(InvalidArgument):
            session.resume(json.dumps({"kind": "job", "job_id": evil}))
    assert server.connections == 0


@pytest.mark.parametrize("evil", cases("E17", *EVIL_IDS))
async def test_no_name_of_a_task_changes_a_request(server, evil):
    async with AsyncSession(engine=server.url) as session:
        with pytest.raises(InvalidArgument):
            session.task(evil)
        with pytest.raises(InvalidArgument):
            await session.create_task(evil, task_type="classification", engine_type="bagualu")
    assert server.connections == 0


@pytest.mark.parametrize("wrong", [None, 5, b"j-1", ["j-1"], True], ids="E17 {0!r}".format)
def test_an_id_must_be_text(wrong):
    session = AsyncSession(engine="http://127.0.0.1:1", cloud="http://127.0.0.1:1")
    for make in (session.job, session.task):
        with pytest.raises(WrongType):
            make(wrong)


@pytest.mark.parametrize("evil", cases("E17", *(one for one in EVIL_IDS if one != "\ud800")))
async def test_no_id_that_a_server_gives_is_taken_on(floor, server, evil):
    async with floor(server) as this:
        server.on_request(chaos.answer(json={"job_id": evil}))
        with pytest.raises((UnexpectedAnswer, OutcomeUnknown)):
            await this.create()
        assert len(server.requests) == 1
