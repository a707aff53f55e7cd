"""Tokens: wrong ones, what shows them, and which files hold them."""

import copy
import json
import os
import pickle
import pprint
import stat
import warnings
from pathlib import Path

import attrs
import msgspec
import pytest

from gts_async import (
    AsyncSession,
    InvalidArgument,
    JobSpec,
    WrongType,
)
from gts_async._net.secret import Credential, Secret
from gts_async._net.settings import Found, Settings, warn_if_exposed
from gts_async.testing import chaos

TOKEN = "TOPSECRET" * 4
SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image", run_command="python train.py")


def cases(case, *values):
    return [pytest.param(value, id=f"{case} {value!r}"[:60]) for value in values]


# K1: tokens that cannot be sent

UNSENDABLE = (
    "TOP\nSECRET",
    "TOP\rSECRET",
    "TOP\x00SECRET",
    "TOPSECRET€",
    "TOP SECRET",
    "Bearer TOP SECRET",
    "TOP\x7fSECRET",
)


def give_to(place, folder, monkeypatch, token):
    """Put a token in its place; gives how it is named there, and the session's arguments."""
    if place == "argument":
        return "token", {"token": token}
    if place == "environment":
        monkeypatch.setenv("GTS_ASYNC_TOKEN", token)
        return "GTS_ASYNC_TOKEN", {}
    if place == "toml":
        (folder / "gts_async.toml").write_text(f"token = {json.dumps(token)}\n")
        (folder / "gts_async.toml").chmod(0o600)
        return "gts_async.toml (token)", {}
    if place == "file":
        (folder / "token").write_text(token, newline="")
        (folder / "token").chmod(0o600)
        monkeypatch.setenv("GTS_ASYNC_TOKEN_FILE", "token")
        return "GTS_ASYNC_TOKEN_FILE (token)", {}

    async def ask():
        return token

    return "token (what the callable gave)", {"token": ask}


PLACES = ["argument", "environment", "toml", "file", "callable"]


@pytest.mark.parametrize("token", cases("K1", *UNSENDABLE))
@pytest.mark.parametrize("place", PLACES)
async def test_a_token_that_cannot_be_sent_is_told_by_where_it_is_and_not_shown(
    shown, place, token, server, nowhere, monkeypatch
):
    if place == "environment" and "\x00" in token:
        place = "file"  # no variable can hold it
    source, given = give_to(place, nowhere, monkeypatch, token)
    with pytest.raises(InvalidArgument) as caught:
        async with AsyncSession(cloud=server.url, **given) as session:
            await session.job("j-1").status()
    assert caught.value.argument == source
    assert caught.value.fix
    assert "SECRET" not in shown(caught.value)
    assert server.connections == 0


@pytest.mark.parametrize("token", cases("K1", "", "  ", "\n", "Bearer ", "Bearer"))
@pytest.mark.parametrize("place", PLACES)
async def test_an_empty_token_is_told_where_it_is_given_and_does_not_count_in_the_environment(
    place, token, server, nowhere, monkeypatch
):
    source, given = give_to(place, nowhere, monkeypatch, token)
    server.otherwise(chaos.answer(json={"status": "working"}))
    if place == "environment" and not token.strip():
        async with AsyncSession(cloud=server.url, **given) as session:
            await session.job("j-1").status()
        assert server.requests[0].header("authorization") is None
        return
    with pytest.raises(InvalidArgument, match="empty") as caught:
        async with AsyncSession(cloud=server.url, **given) as session:
            await session.job("j-1").status()
    assert caught.value.argument == source
    assert server.connections == 0


@pytest.mark.parametrize(
    "text",
    [
        'token = "TOPSECRET',
        'token = ["TOPSECRET"]',
        'token = "TOPSECRET"\nengin = "x"',
        'token = "TOPSECRET"\ncloud = "x"',
    ],
    ids=["K1 not closed", "K1 a list", "K1 an unknown setting", "K1 a wrong one"],
)
async def test_no_fault_of_a_configuration_file_shows_the_token_in_it(shown, text, server, nowhere):
    (nowhere / "gts_async.toml").write_text(text)
    with pytest.raises(InvalidArgument, match=r"gts_async\.toml") as caught:
        await AsyncSession(cloud=None if "cloud" in text else server.url).__aenter__()
    assert "SECRET" not in shown(caught.value)
    assert_unchained(caught.value)


@pytest.mark.parametrize("setting", cases("K1", "GTS_ASYNC_TOKEN_FILE", "gts_async.toml"))
async def test_a_token_that_is_not_text_is_not_shown_by_what_decodes_it(shown, setting, server, nowhere, monkeypatch):
    content = b"TOPSECRET\xff"
    monkeypatch.setenv("GTS_ASYNC_TOKEN_FILE", "token")
    name = "token" if setting.endswith("FILE") else setting
    (nowhere / name).write_bytes(content if name == "token" else b'token = "' + content + b'"')
    with pytest.raises(InvalidArgument, match=setting) as caught:
        await AsyncSession(cloud=server.url).__aenter__()
    assert "SECRET" not in shown(caught.value)
    assert_unchained(caught.value)


def assert_unchained(error):
    """A parser's error holds what it has parsed."""
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize(
    "wrong",
    [{"engine": "nonsense"}, {"dialect": "2025-01"}, {"ca_file": 5}, {"cloud": "http://a b"}, {"store_hosts": ["*"]}],
    ids="K1 {0}".format,
)
def test_no_other_wrong_argument_shows_the_token(shown, wrong):
    with pytest.raises(InvalidArgument) as caught:
        AsyncSession(token=TOKEN, **wrong)
    assert "SECRET" not in shown(caught.value)


async def test_a_callable_that_is_not_async_does_not_show_what_it_gave(shown, server):
    with pytest.raises(WrongType, match="async def") as caught:
        async with AsyncSession(cloud=server.url, token=lambda: TOKEN) as session:
            await session.job("j-1").status()
    assert "SECRET" not in shown(caught.value)


# K2: what the holders of a token show of it


def holders():
    found = {"environment": {"GTS_ASYNC_TOKEN": TOKEN, "GTS_ASYNC_CLOUD": "https://cloud.test/api"}}
    loaded = Settings(environ=found["environment"])
    loaded.credential()
    return {
        "Secret": Secret(TOKEN),
        "Credential": Credential(TOKEN),
        "Found": Found(TOKEN, "GTS_ASYNC_TOKEN"),
        "Settings of an argument": Settings(credential=Credential(TOKEN), environ={}),
        "Settings of the environment": Settings(environ=found["environment"]),
        "Settings that are loaded": loaded,
        "AsyncSession": AsyncSession(cloud="https://cloud.test/api", token=TOKEN),
        "AsyncSession._lines": AsyncSession(cloud="https://cloud.test/api", token=TOKEN)._lines,
        "Job": AsyncSession(cloud="https://cloud.test/api", token=TOKEN).job("j-1"),
    }


PRINTERS = {
    "repr": repr,
    "str": str,
    "format": "{}".format,
    "pprint": pprint.pformat,
    "vars": lambda value: deep(vars, value),
    "slots": lambda value: deep(slots, value),
    "pickle": pickle.dumps,
    "pickle protocol 0": lambda value: pickle.dumps(value, 0),
    "copy": lambda value: deep(slots, copy.copy(value)),
    "deepcopy": lambda value: deep(slots, copy.deepcopy(value)),
    "reduce": lambda value: value.__reduce_ex__(4),
    "json": json.dumps,
    "json of anything": lambda value: json.dumps(value, default=vars),
    "msgspec": msgspec.json.encode,
    "msgspec builtins": lambda value: msgspec.to_builtins(value, enc_hook=vars),
    "attrs": attrs.asdict,
    "attrs tuple": attrs.astuple,
}


def slots(value):
    names = {name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())}
    return {**getattr(value, "__dict__", {}), **{name: getattr(value, name, None) for name in names}}


def deep(look, value, depth=4):
    """Give all that `look` finds in a value and in what it holds, as text."""
    try:
        found = look(value) if depth else {}
    except TypeError:
        found = value if isinstance(value, dict) and depth else {}
    return repr(value) + "".join(deep(look, inner, depth - 1) for inner in found.values())


@pytest.mark.parametrize("holder", holders(), ids="K2 {}".format)
@pytest.mark.parametrize("printer", PRINTERS)
def test_nothing_that_holds_the_token_shows_it(holder, printer):
    value = holders()[holder]
    try:
        text = PRINTERS[printer](value)
    except (
        TypeError,
        AttributeError,
        ValueError,
        attrs.exceptions.NotAnAttrsClassError,
        pickle.PicklingError,
    ) as error:
        # Refused, which shows nothing either.
        text = str(error)
    assert "SECRET" not in str(text)


def test_a_secret_is_there_for_whoever_asks_for_it():
    assert Secret(TOKEN).reveal() == TOKEN
    assert Found(TOKEN, "token").value == TOKEN


@pytest.mark.parametrize("travelling", [pickle.dumps, copy.deepcopy])
@pytest.mark.parametrize("holder", ["Secret", "AsyncSession", "Settings of the environment", "Job"])
def test_what_holds_the_token_does_not_travel(holder, travelling):
    value = holders()[holder]
    with pytest.raises(TypeError):
        travelling(value)


# K11: files


def exposed(path, mode, text):
    path.write_text(text)
    path.chmod(mode)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o777, 0o444], ids="K11 {0:o}".format)
@pytest.mark.parametrize("holder", ["gts_async.toml", "config/gts_async/config.toml", "the token"])
async def test_a_file_with_a_token_that_others_may_read_is_warned_of_once(server, nowhere, monkeypatch, holder, mode):
    path = nowhere / holder
    path.parent.mkdir(parents=True, exist_ok=True)
    exposed(path, mode, "TOPSECRET" if holder == "the token" else 'token = "TOPSECRET"\n')
    if holder == "the token":
        monkeypatch.setenv("GTS_ASYNC_TOKEN_FILE", str(path))
    server.otherwise(chaos.answer(json={"status": "working"}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with AsyncSession(cloud=server.url) as session:
            await session.job("j-1").status()
            await session.job("j-1").status()
    [warning] = caught
    assert warning.category is UserWarning
    assert str(warning.message).startswith(f"{holder if holder == 'gts_async.toml' else path} holds a token")
    assert "chmod 600 " in str(warning.message)
    assert "SECRET" not in str(warning.message)
    assert server.requests[0].header("authorization") == "Bearer TOPSECRET"


async def test_the_warning_may_be_an_error_and_the_next_call_goes_on(shown, server, nowhere):
    exposed(nowhere / "gts_async.toml", 0o644, 'token = "TOPSECRET"\n')
    server.otherwise(chaos.answer(json={"status": "working"}))
    session = AsyncSession(cloud=server.url)
    with pytest.raises(UserWarning) as caught:
        await session.job("j-1").status()
    assert "SECRET" not in shown(caught.value)
    await session.job("j-1").status()
    await session.aclose()


@pytest.mark.parametrize(
    ("mode", "text"),
    [(0o600, 'token = "t"'), (0o400, 'token = "t"'), (0o700, 'token = "t"'), (0o644, 'dialect = "2023-12"')],
    ids=["K11 600", "K11 400", "K11 700", "K11 no token"],
)
async def test_a_file_of_ones_own_or_without_a_token_is_not_warned_of(server, nowhere, mode, text):
    exposed(nowhere / "gts_async.toml", mode, text)
    async with AsyncSession(cloud=server.url) as session:
        await session.ping()


async def test_a_pipe_with_the_token_is_nobody_elses(server, monkeypatch):
    reading, writing = os.pipe()
    os.write(writing, b"t\n")
    os.close(writing)
    monkeypatch.setenv("GTS_ASYNC_TOKEN_FILE", f"/dev/fd/{reading}")
    async with AsyncSession(cloud=server.url) as session:
        await session.ping()
    os.close(reading)
    assert server.requests[0].header("authorization") == "Bearer t"


def test_a_device_is_no_file_that_others_may_read():
    # As a terminal is, when somebody types the token in; warnings are errors here.
    assert stat.S_IMODE(os.stat("/dev/null").st_mode) & 0o077
    warn_if_exposed(Path("/dev/null"))


async def test_what_the_library_writes_itself_is_for_its_owner_alone(floor, server, tmp_path):
    before = os.umask(0)
    try:
        async with floor(server) as this, this.session.submit_many([SPEC], journal=tmp_path / "batch.db") as outcomes:
            assert [outcome.error async for outcome in outcomes] == [None]
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir())
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
