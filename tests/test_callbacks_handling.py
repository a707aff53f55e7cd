"""What becomes of a callback after its answer: the handler has it once if all goes well, and not for ever if not."""

import asyncio
import gc
import itertools
import logging
import time

import pytest

from gts_async import JobStatus, WrongType
from gts_async.callbacks import CallbackLimits, Receiver, receiver
from gts_async.callbacks.handling import MARGIN

BASE = "https://hooks.test/jobs"
FAILED = b'{"jobId":"","status":"fail","url":""}\n'
SUCCEEDED = b'{"jobId":"ai1","status":"success","url":"https://store.test/data.zip?Signature=SECRETmark"}'
QUICK = CallbackLimits(first_delay=0.001, follow_every=0.005)


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    return tmp_path / "callbacks.db" if request.param == "file" else None


async def post(app, url, body=FAILED):
    sent = []

    async def receive():
        return {"type": "http.request", "body": body}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": url.removeprefix("https://hooks.test")}, receive, send)
    return sent[0]["status"]


async def until(is_so):
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.002)


async def test_the_handler_is_given_what_the_callback_claims(store):
    seen = []

    async def handler(callback):
        seen.append(callback)

    async with receiver(None, BASE, store=store, on_callback=handler) as app:
        url = app.url()
        before = time.time()
        assert await post(app, url, SUCCEEDED) == 200
        await until(lambda: app.received.handled)
    (callback,) = seen
    assert (callback.callback_url, callback.job_id, callback.status) == (url, "ai1", JobStatus.SUCCEEDED)
    assert (callback.word, callback.has_model, callback.tries) == ("success", True, 1)
    assert before - 1 <= callback.received_at.timestamp() <= time.time() + 1
    assert url.rpartition("/")[2].startswith(callback.url_id)
    assert url.rpartition("/")[2] not in repr(callback)


async def test_a_callback_that_comes_many_times_is_handled_once(store):
    seen = []

    async def handler(callback):
        seen.append(callback.callback_url)

    async with receiver(None, BASE, store=store, on_callback=handler) as app:
        urls = [app.url() for _ in range(20)]
        await asyncio.gather(*(post(app, url) for url in urls for _ in range(5)))
        await until(lambda: app.received.handled >= 20)
        await post(app, urls[0])
        await asyncio.sleep(0.01)
    assert sorted(seen) == sorted(urls)


async def test_the_answer_does_not_wait_for_the_handler(store):
    go_on = asyncio.Event()

    async def handler(callback):
        await go_on.wait()

    async with receiver(None, BASE, store=store, on_callback=handler) as app:
        for _ in range(40):
            assert await post(app, app.url()) == 200
        assert app.received.handled == 0
        go_on.set()
        await until(lambda: app.received.handled == 40)


async def test_no_more_handlers_run_at_once_than_are_allowed(store):
    running, most = set(), []

    async def handler(callback):
        running.add(callback.callback_url)
        most.append(len(running))
        await asyncio.sleep(0.001)
        running.discard(callback.callback_url)

    limits = CallbackLimits(max_handlers=3)
    async with receiver(None, BASE, store=store, on_callback=handler, limits=limits) as app:
        await asyncio.gather(*(post(app, app.url()) for _ in range(30)))
        await until(lambda: app.received.handled == 30)
    assert max(most) == 3


async def test_a_handler_that_raises_is_called_again(store, caplog):
    tries = []

    async def handler(callback):
        tries.append((callback.tries, time.monotonic()))
        if len(tries) < 4:
            raise LookupError("not yet")

    limits = CallbackLimits(first_delay=0.01)
    async with receiver(None, BASE, store=store, on_callback=handler, limits=limits) as app:
        assert await post(app, app.url()) == 200
        await until(lambda: app.received.handled)
    numbers, times = zip(*tries, strict=True)
    assert numbers == (1, 2, 3, 4)
    delays = [after - before for before, after in itertools.pairwise(times)]
    assert [delay >= least for delay, least in zip(delays, (0.009, 0.018, 0.036), strict=True)] == [True] * 3
    assert caplog.records == []


async def test_a_handler_that_goes_on_failing_is_given_up_and_told_once(store, caplog):
    tries = []

    async def handler(callback):
        tries.append(callback.callback_url)
        raise LookupError("never")

    limits = CallbackLimits(first_delay=0.001, max_tries=3)
    async with receiver(None, BASE, store=store, on_callback=handler, limits=limits) as app:
        url = app.url()
        await post(app, url, SUCCEEDED)
        await until(lambda: app.received.given_up)
        await post(app, url, SUCCEEDED)
        await asyncio.sleep(0.01)
        assert (app.received.handled, app.received.given_up, len(tries)) == (0, 1, 3)
    (record,) = caplog.records
    assert (record.levelno, record.exc_info[0]) == (logging.ERROR, LookupError)
    assert "ai1" in record.getMessage()
    assert url not in caplog.text


async def test_a_handler_that_hangs_is_cut_and_called_again(store):
    tries = []

    async def handler(callback):
        tries.append(callback.tries)
        if callback.tries == 1:
            await asyncio.Event().wait()

    limits = CallbackLimits(first_delay=0.001, handler_time=0.02)
    async with receiver(None, BASE, store=store, on_callback=handler, limits=limits) as app:
        await post(app, app.url())
        await until(lambda: app.received.handled)
    assert tries == [1, 2]


async def test_one_that_fails_does_not_hold_up_the_others(store):
    async def handler(callback):
        if callback.job_id is None:
            raise LookupError

    limits = CallbackLimits(max_handlers=1, first_delay=1000.0)
    async with receiver(None, BASE, store=store, on_callback=handler, limits=limits) as app:
        await post(app, app.url())
        for _ in range(5):
            await post(app, app.url(), SUCCEEDED)
        await until(lambda: app.received.handled == 5)


async def test_closing_lets_a_handler_end(store):
    begun = asyncio.Event()

    async def handler(callback):
        begun.set()
        await asyncio.sleep(0.02)

    async with receiver(None, BASE, store=store, on_callback=handler) as app:
        await post(app, app.url())
        await begun.wait()
    assert app.received.handled == 1
    assert [task for task in asyncio.all_tasks() if "callback" in task.get_name()] == []


async def test_a_handler_that_does_not_end_is_cut_at_the_close_and_its_callback_handled_by_the_next_receiver(tmp_path):
    begun = asyncio.Event()
    seen = []

    async def hanging(callback):
        begun.set()
        await asyncio.Event().wait()

    async def handler(callback):
        seen.append(callback.tries)

    path = tmp_path / "callbacks.db"
    async with (
        asyncio.timeout(60),
        receiver(None, BASE, store=path, on_callback=hanging, limits=CallbackLimits(grace=0.02)) as app,
    ):
        await post(app, app.url())
        await begun.wait()
    assert [task for task in asyncio.all_tasks() if "callback" in task.get_name()] == []
    async with receiver(None, BASE, store=path, on_callback=handler) as app:
        await until(lambda: app.received.handled)
    assert seen == [2]


async def test_what_no_handler_has_had_is_handled_after_a_restart(tmp_path):
    seen = []

    async def handler(callback):
        seen.append(callback.callback_url)

    async with receiver(None, BASE, store=tmp_path / "callbacks.db") as app:
        url = app.url()
        await post(app, url)
    async with receiver(None, BASE, store=tmp_path / "callbacks.db", on_callback=handler) as app:
        await until(lambda: app.received.handled)
    async with receiver(None, BASE, store=tmp_path / "callbacks.db", on_callback=handler) as app:
        await asyncio.sleep(0.01)
    assert seen == [url]


async def test_what_a_process_was_killed_over_is_handled_when_its_time_is_surely_over(tmp_path):
    begun = asyncio.Event()
    seen = []
    now = 1_700_000_000.0

    async def hanging(callback):
        begun.set()
        await asyncio.Event().wait()

    async def handler(callback):
        seen.append(callback.tries)

    limits = CallbackLimits(handler_time=100.0)
    path = tmp_path / "callbacks.db"
    killed = Receiver(None, BASE, store=path, on_callback=hanging, limits=limits, now=lambda: now)
    await post(killed, killed.url())
    await begun.wait()
    async with Receiver(
        None, BASE, store=path, on_callback=handler, limits=limits, now=lambda: now + 100.0 + MARGIN / 2
    ):
        await asyncio.sleep(0.02)
    assert seen == []
    async with Receiver(None, BASE, store=path, on_callback=handler, limits=limits, now=lambda: now + 100.0 + MARGIN):
        await until(lambda: seen)
    assert seen == [2]
    for task in [*killed._handling._running, killed._handling._going]:
        task.cancel()
    await killed.aclose()


async def test_of_two_with_one_store_each_callback_is_handled_by_one(tmp_path):
    seen = []

    async def handler(callback):
        await asyncio.sleep(0.001)
        seen.append(callback.callback_url)

    path = tmp_path / "callbacks.db"
    async with (
        receiver(None, BASE, store=path, on_callback=handler, limits=QUICK) as one,
        receiver(None, BASE, store=path, on_callback=handler, limits=QUICK) as other,
    ):
        urls = [one.url() for _ in range(60)]
        await asyncio.gather(*(post(app, url) for url in urls for app in (one, other)))
        await until(lambda: len(seen) >= 60)
        await asyncio.sleep(0.02)
    assert sorted(seen) == sorted(urls)


async def test_what_another_process_receives_is_handled_here(tmp_path):
    seen = []

    async def handler(callback):
        seen.append(callback.callback_url)

    path = tmp_path / "callbacks.db"
    async with (
        receiver(None, BASE, store=path, on_callback=handler, limits=QUICK) as app,
        receiver(None, BASE, store=path) as listener,
    ):
        url = app.url()
        await post(listener, url)
        await until(lambda: app.received.handled)
    assert seen == [url]


async def test_a_disk_that_fails_under_the_handler_ends_nothing(tmp_path, caplog):
    seen = []

    async def handler(callback):
        seen.append(callback.tries)
        if callback.tries == 1:
            path.rename(tmp_path / "away")

    path = tmp_path / "callbacks.db"
    async with receiver(None, BASE, store=path, on_callback=handler, limits=QUICK) as app:
        assert await post(app, app.url()) == 200
        await until(lambda: app.received.handled)
        assert await post(app, app.url()) == 503
    assert seen == [1]
    gc.collect()
    # Told by the receiver; no task of ours has ended with an error that nobody took.
    assert [record.name for record in caplog.records] == ["gts_async"]


def test_a_handler_that_is_none_is_refused():
    with pytest.raises(WrongType, match="on_callback"):
        receiver(None, BASE, on_callback="print")
