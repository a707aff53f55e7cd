import pickle

import pytest

from gts_async import AsyncSession, InvalidArgument, Limits, Timeouts, WrongType
from gts_async._net.config import BaseURL
from gts_async._net.settings import Settings, from_files


@pytest.mark.parametrize(
    ("text", "joined", "port"),
    [
        ("http://127.0.0.1:5201", "http://127.0.0.1:5201", 5201),
        ("https://llm.sxwl.ai/api/", "https://llm.sxwl.ai/api", 443),
        (" http://host ", "http://host", 80),
        ("http://[::1]:8000/x", "http://[::1]:8000/x", 8000),
    ],
)
def test_a_base_url_is_read(text, joined, port):
    url = BaseURL.parse(text, "engine")
    assert (url.text, url.port) == (joined, port)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("127.0.0.1:5201", "http://"),
        ("engine.test", "http://"),
        ("//engine.test", "http://"),
        ("ftp://engine.test", "http://"),
        ("http://", "no host"),
        ("http://user:SECRET@engine.test", "user name"),
        ("http://engine.test?x=1", "query"),
        ("http://engine.test/#x", "fragment"),
        ("http://engine.test/a b", "white space"),
        ("http://engine.test:port", "not a URL"),
        ("", "http://"),
    ],
)
def test_a_url_that_cannot_work_is_refused_by_name(text, problem):
    with pytest.raises(InvalidArgument, match=problem) as caught:
        AsyncSession(engine=text)
    assert caught.value.argument == "engine"
    assert caught.value.fix
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("localhost", True), ("127.9.9.9", True), ("[::1]", True), ("example.com", False), ("10.0.0.1", False)],
)
def test_loopback_is_told_from_the_rest(host, is_loopback):
    assert BaseURL.parse(f"http://{host}", "engine").is_loopback is is_loopback


def test_an_argument_wins_over_the_environment_and_that_over_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gts_async.toml").write_text('engine = "http://file"\ncloud = "http://file/api"\ndialect = "2024-04"\n')
    environ = {"GTS_ASYNC_ENGINE": "http://environment", "GTS_ASYNC_CLOUD": "http://environment/api"}
    settings = Settings(engine="http://argument", environ=environ)
    assert settings.base_url("engine").host == "argument"
    assert settings.base_url("cloud").host == "environment"
    assert settings.dialect().value == "2024-04"


def test_a_token_is_read_from_the_file_that_a_setting_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("Bearer from-a-file\n")
    (tmp_path / "token").chmod(0o600)
    environ = {"GTS_ASYNC_TOKEN_FILE": str(tmp_path / "token")}
    settings = Settings(environ=environ)
    assert settings.credential()._value.reveal() == "Bearer from-a-file"


@pytest.mark.parametrize("text", ["engin = 'x'", "engine = 5", "engine = ", 'token = "SECRET'])
def test_a_file_with_anything_else_in_it_is_refused_by_name(tmp_path, text):
    path = tmp_path / "gts_async.toml"
    path.write_text(text)
    with pytest.raises(InvalidArgument) as caught:
        from_files((path,))
    assert caught.value.argument == str(path)
    assert "SECRET" not in str(caught.value)


def test_an_unknown_dialect_is_refused_with_the_known_ones():
    with pytest.raises(InvalidArgument, match="2023-12"):
        AsyncSession(cloud="https://cloud.test/api", dialect="2025-01")


@pytest.mark.parametrize(
    ("value", "error"), [(0, InvalidArgument), (-1, InvalidArgument), (float("inf"), InvalidArgument), ("5", WrongType)]
)
@pytest.mark.parametrize("name", ["connect", "read", "total", "load", "transfer"])
def test_timeouts_are_positive_seconds(name, value, error):
    with pytest.raises(error, match=name):
        Timeouts(**{name: value})


@pytest.mark.parametrize("name", ["max_connections", "max_in_flight", "max_looks_per_second", "max_answer_bytes"])
def test_limits_under_which_nothing_moves_are_refused(name):
    with pytest.raises(InvalidArgument, match=name):
        Limits(**{name: 0})


@pytest.mark.parametrize("name", ["max_connections", "max_in_flight", "max_answer_bytes"])
def test_half_a_connection_is_refused(name):
    with pytest.raises(WrongType, match=name):
        Limits(**{name: 0.5})


def test_values_that_configure_can_be_pickled():
    for value in (Limits(), Timeouts()):
        assert pickle.loads(pickle.dumps(value)) == value
