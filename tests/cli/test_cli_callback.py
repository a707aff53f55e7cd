"""``gts-async callback``: run as users run it, called over HTTP."""

import base64
import json
import re
import signal
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from gts_async.local.serving import listening, url_of
from gts_async.local.stack import EmbeddedCloud

FAILED = {"jobId": "", "status": "fail", "url": ""}
JOB = ("job", "submit", "--gpu-type", "NVIDIA-GeForce-RTX-3090", "--image-path", "image:1", "--detach", "--json")
SECRET = f"whsec_{base64.b64encode(b'SECRETmark' * 3).decode()}"
LISTEN = ("callback", "listen", "--store", "callbacks.db")
Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]


def post(url: str, document: object = FAILED, **headers: str) -> int:
    body = json.dumps(document).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json", **headers}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def began(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    found: dict[str, str] = json.loads(line)
    return found


def made(main: Run, base: str, *more: str) -> list[str]:
    ended = main("callback", "url", "--base-url", base, "--store", "callbacks.db", *more)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


@pytest.mark.slow
def test_callbacks_are_printed_and_kept(main: Run, start: Start, tmp_path: Path) -> None:
    process = start(*LISTEN, "--port", "0", "--json")
    begun = began(process)
    assert begun.keys() == {"listening", "base_url", "store"}
    assert begun["listening"] == begun["base_url"]
    first, second = made(main, begun["base_url"], "--count", "2")
    success = {"jobId": "ai1", "status": "success", "url": "https://store.test/data.zip?Signature=SIGNmark"}
    assert [post(first), post(first), post(second, success), post(f"{first[:-1]}"), post(second, {})] == [
        200, 200, 200, 404, 400,
    ]  # fmt: skip
    assert process.stdout is not None
    printed = [json.loads(process.stdout.readline()) for _ in range(2)]
    shown = [(line["job_id"], line["status"], line["has_model"]) for line in printed]
    assert shown == [(None, "failed", False), ("ai1", "succeeded", True)]
    assert [url.rpartition("/")[2][:20] for url in (first, second)] == [line["callback"] for line in printed]
    process.send_signal(signal.SIGTERM)
    out, told = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == ""
    assert "SIGNmark" not in told
    assert second not in told
    listed = main("callback", "list", "--store", "callbacks.db", "--json")
    assert [json.loads(line) for line in listed.stdout.splitlines()] == printed
    in_words = main("callback", "list", "--store", "callbacks.db").stdout.splitlines()
    assert len(in_words) == 2
    assert re.fullmatch(r"\d\d:\d\d:\d\d  \S{20}…  ai1  said to be succeeded, a model is there", in_words[1])


@pytest.mark.slow
def test_urls_of_yesterday_are_known_and_ctrl_c_interrupts(main: Run, start: Start) -> None:
    (url,) = made(main, "http://127.0.0.1:1")
    process = start(*LISTEN, "--port", "0", "--json", "--base-url", "http://127.0.0.1:1")
    begun = began(process)
    assert begun["base_url"] == "http://127.0.0.1:1"
    assert post(url.replace("http://127.0.0.1:1", begun["listening"])) == 200
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


@pytest.mark.slow
def test_only_what_a_gateway_has_signed_is_taken_if_that_is_asked_for(main: Run, start: Start, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.write_text(f"{SECRET}\n")
    secrets.chmod(0o600)
    process = start(*LISTEN, "--port", "0", "--secret-file", "secrets", "--json")
    begun = began(process)
    (url,) = made(main, begun["base_url"])
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "msg",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("msg", now, json.dumps(FAILED)),
    }
    assert [post(url), post(url, **headers)] == [401, 200]
    process.send_signal(signal.SIGTERM)
    out, told = process.communicate(timeout=60)
    assert len(out.splitlines()) == 1
    assert SECRET not in out + told


@pytest.mark.slow
def test_watched_jobs_are_followed_to_their_end_and_the_callback_wakes_their_watch(
    embedded_cloud: EmbeddedCloud, main: Run, start: Start, tmp_path: Path
) -> None:
    given = {"GTS_ASYNC_CLOUD": embedded_cloud.url, "GTS_ASYNC_TOKEN": embedded_cloud.token}
    waiting = tmp_path / "wait.sh"
    waiting.write_text(f"while [ ! -e {tmp_path}/listening ]; do sleep 0.05; done\n")
    with listening() as free:
        base = url_of(free)
    jobs = []
    for url in made(main, base, "--count", "2"):
        ended = main(*JOB, "--run-command", f"sh {waiting}", "--callback-url", url, given=given)
        jobs.append(json.loads(ended.stdout))
    watched = ("--watch", jobs[0]["id"], "--watch", jobs[1]["token"])
    process = start(*LISTEN, "--port", base.rpartition(":")[2], *watched, "--json", given=given)
    began(process)
    (tmp_path / "listening").touch()
    out, told = process.communicate(timeout=50)
    assert process.returncode == 0, told
    lines = [json.loads(line) for line in out.splitlines()]
    final = {line["id"]: line["status"] for line in lines if line.get("is_final")}
    assert final == {job["id"]: "succeeded" for job in jobs}
    called = {line["job_id"]: line["received_at"] for line in lines if "callback" in line}
    assert called.keys() == final.keys()


@pytest.mark.slow
def test_a_watched_job_that_did_not_end_well_is_exit_one_and_one_that_is_none_does_not_hide_it(
    embedded_cloud: EmbeddedCloud, main: Run, start: Start
) -> None:
    given = {"GTS_ASYNC_CLOUD": embedded_cloud.url, "GTS_ASYNC_TOKEN": embedded_cloud.token}
    job = json.loads(main(*JOB, "--run-command", "true", given=given).stdout)
    process = start(*LISTEN, "--port", "0", "--watch", "nobody", "--watch", job["id"], given=given)
    out, told = process.communicate(timeout=50)
    assert process.returncode == 1
    assert "succeeded" in out.splitlines()[-1]
    assert "nobody" in told


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_with_what_was_watched(embedded_cloud: EmbeddedCloud, main: Run, start: Start) -> None:
    given = {"GTS_ASYNC_CLOUD": embedded_cloud.url, "GTS_ASYNC_TOKEN": embedded_cloud.token}
    job = json.loads(main(*JOB, "--run-command", "sleep 60", given=given).stdout)
    process = start(*LISTEN, "--port", "0", "--watch", job["id"], "--json", given=given)
    began(process)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"gts-async job wait {job['id']}" in told


def test_what_is_kept_is_for_its_owner_only(main: Run, tmp_path: Path) -> None:
    urls = made(main, "https://hooks.test", "--count", "3")
    assert len(set(urls)) == 3
    assert stat.S_IMODE((tmp_path / "callbacks.db.key").stat().st_mode) == 0o600
    records = main("callback", "url", "--base-url", "https://hooks.test", "--store", "callbacks.db", "--json")
    assert json.loads(records.stdout)["callback_url"].startswith("https://hooks.test/")


def test_without_a_store_one_in_the_users_data_directory_is_made(main: Run, tmp_path: Path) -> None:
    ended = main("callback", "url", "--base-url", "https://hooks.test", given={"XDG_DATA_HOME": str(tmp_path / "data")})
    assert ended.returncode == 0
    assert (tmp_path / "data" / "gts_async" / "callbacks.db.key").is_file()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(("listen", "--host", "0.0.0.0", "--port", "0"), 2, id="nobody can call 0.0.0.0"),
        pytest.param(("listen", "--host", "nowhere.invalid", "--port", "0"), 3, id="no address of ours"),
        pytest.param(("listen", "--port", "0", "--base-url", "hooks.test"), 2, id="no URL"),
        pytest.param(("listen", "--port", "0", "--store", "no/folder/c.db"), 1, id="no folder"),
        pytest.param(("listen", "--port", "0", "--store", "damaged.db"), 1, id="damaged"),
        pytest.param(("listen", "--port", "0", "--secret-file", "none"), 2, id="no file of secrets"),
        pytest.param(("listen", "--port", "0", "--secret-file", "wrong"), 2, id="no secret"),
        pytest.param(("listen", "--port", "0", "--watch", "a b"), 2, id="no id"),
        pytest.param(("url", "--base-url", "https://h.test", "--count", "0"), 2, id="no count"),
        pytest.param(("url",), 2, id="no base"),
        pytest.param(("list", "--store", "nothing.db"), 2, id="no store"),
        pytest.param(("list", "--store", "damaged.db"), 1, id="damaged list"),
    ],
)
def test_what_cannot_be_is_one_line(main: Run, tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    (tmp_path / "damaged.db").write_bytes(b"no database" * 1000)
    (tmp_path / "wrong").write_text("SECRETmark")
    (tmp_path / "wrong").chmod(0o600)
    given = {"GTS_ASYNC_CLOUD": "http://127.0.0.1:9/api", "GTS_ASYNC_TOKEN": "t", "XDG_DATA_HOME": str(tmp_path)}
    ended = main("callback", *arguments, given=given)
    assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
    assert "SECRETmark" not in ended.stderr
    assert ended.stderr.startswith("error: ")
