"""Cancellation, many calls at once, closing: whoever goes away, nothing is lost and nobody else is harmed."""

import asyncio
import contextlib
import gc
import random
import signal
import subprocess
import sys
import warnings

import anyio
import httpx
import pytest

from gts_async import (
    AsyncSession,
    JobSpec,
    JobStatus,
    Limits,
    MisuseError,
    OutcomeUnknown,
    RetryPolicy,
    TimedOut,
    Timeouts,
)
from gts_async._net.slots import SlotTransport
from gts_async.testing import ChaosServer, chaos

ONE = Limits(max_connections=1)
SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image", run_command="python train.py")


async def turns(number):
    for _ in range(number):
        await asyncio.sleep(0)


# H1, H2


@pytest.mark.parametrize("is_warm", [True, False], ids=["on an open connection", "on a new one"])
async def test_cancelling_at_any_turn_of_the_loop_loses_no_connection(server, floor, cancelled_after, is_warm):
    async with floor(server, limits=ONE) as this:
        for number in range(41):
            if is_warm:
                await this.look()
            await cancelled_after(number, this.session.job("j-1").status)
            assert this.slots.in_use == 0
            assert (await this.look()).status is JobStatus.WORKING


async def test_cancelling_at_any_turn_of_a_tls_handshake_loses_no_connection(floor, cancelled_after):
    async with (
        ChaosServer(tls=True) as server,
        floor(server, limits=ONE, ca_file=server.ca_file, retry=RetryPolicy(max_attempts=1)) as this,
    ):
        await this.look()
        for number in range(0, 61):
            server.hang_up()
            await server.drained()
            await cancelled_after(number, this.session.job("j-1").status)
            assert this.slots.in_use == 0
        with contextlib.suppress(OutcomeUnknown):
            await this.look()
        assert (await this.look()).status is JobStatus.WORKING


async def test_cancelling_a_create_at_any_turn_finishes_it_or_never_sends_it(server, floor, cancelled_after):
    async with floor(server, limits=ONE) as this:
        for number in range(41):
            server.requests.clear()
            await cancelled_after(number, this.create)
            await this.look()
            creates = [request for request in server.requests if request.path.endswith("/userJob")]
            assert len(creates) <= 1
            assert this.slots.in_use == 0


async def test_cancelling_while_the_answer_drips_loses_no_connection(server, floor, cancelled_after):
    async with floor(server, limits=ONE) as this:
        for number in range(0, 41, 5):
            server.on_request(chaos.drip(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", every=0.0), chaos.stall())
            async with asyncio.timeout(60):
                asking = asyncio.create_task(cancelled_after(number + 100, this.session.job("j-1").status))
                await asking
            assert this.slots.in_use == 0
            server.forget()


INTERRUPTED = """
import asyncio, sys
from gts_async import AsyncSession

async def main():
    # Else the development mode complains of a machine that is slow.
    asyncio.get_running_loop().slow_callback_duration = 1000
    async with AsyncSession(cloud=sys.argv[1], token="t") as session:
        print("begun", flush=True)
        while True:
            await asyncio.gather(*(session.job("j").status() for _ in range(20)))

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("after", [0.0, 0.03, 0.1])
def test_ctrl_c_in_the_middle_of_calls_ends_the_program_without_a_word(chaos_server, after):
    chaos_server.otherwise(chaos.answer(json={"status": "working"}))
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", INTERRUPTED, f"{chaos_server.url}/api"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=60)
    assert (said, complained, process.returncode) == ("interrupted\n", "", 0)


# H3


async def test_a_storm_of_cancellations_leaves_as_many_connections_as_there_were(server, floor, cancelled_after):
    chance = random.Random(3)
    async with floor(server, limits=Limits(max_connections=5)) as this:
        for _ in range(20):
            await asyncio.gather(
                *(cancelled_after(chance.randrange(60), this.session.job("j-1").status) for _ in range(20))
            )
        assert this.slots.in_use == 0
        await server.until(lambda: server.open <= 5)
        await asyncio.gather(*(this.look() for _ in range(20)))


async def test_an_answer_that_comes_after_its_call_was_cancelled_reaches_nobody_else(server, floor):
    async def echo(connection):
        await asyncio.sleep(0.01)
        await chaos.answer(json={"status": "working", "url": f"https://store.test{connection.request.path}"})(
            connection
        )

    async with floor(server, limits=ONE) as this:
        server.otherwise(echo)
        for number in range(10):
            first = asyncio.create_task(this.session.list_jobs())
            await turns(40 + number)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            assert (await this.look()).url == "https://store.test/api/userJob/job_status"


# H4


async def test_an_answer_that_nobody_closes_gives_its_connection_back(server):
    async def no_context():
        raise AssertionError("plain http needs no certificates")

    slots = SlotTransport(max_connections=1, ssl_context=no_context)
    async with httpx.AsyncClient(transport=slots) as client:
        response = await client.send(client.build_request("GET", server.url), stream=True)
        assert slots.in_use == 1
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            del response
            gc.collect()
        assert "neither read to its end nor closed" in str([warning.message for warning in told])
        await turns(3)
        assert slots.in_use == 0
        assert (await client.get(server.url)).status_code == 200
    await server.drained()


# H5


async def test_ten_thousand_calls_take_turns_on_64_connections():
    at_once = most = 0
    order = []

    async def answer(request):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        order.append(int(request.url.params["job_id"][1:]))
        await asyncio.sleep(0)
        at_once -= 1
        return httpx.Response(200, json={"status": "running"})

    async def no_context():
        raise AssertionError("plain http needs no certificates")

    slots = SlotTransport(
        max_connections=64, ssl_context=no_context, make_transport=lambda _: httpx.MockTransport(answer)
    )
    events = []
    async with AsyncSession(
        cloud="http://127.0.0.1/api",
        dialect="2024-04",
        token="t",
        transport=slots,
        limits=Limits(max_connections=64, max_in_flight=500),
        on_event=events.append,
    ) as session:
        looks = await asyncio.gather(*(session.job(f"j{number}").status() for number in range(10_000)))
        assert {look.status for look in looks} == {JobStatus.RUNNING}
    assert most == 64
    assert order == list(range(10_000))
    assert len(events) == 10_000
    assert sum(event.queued > 0 for event in events) > 9_000


# H6


def test_a_session_of_another_loop_is_refused_and_goes_on_in_its_own(chaos_server):
    chaos_server.otherwise(chaos.answer(json={"status": "working"}))
    with asyncio.Runner() as first, asyncio.Runner() as second:
        session = AsyncSession(cloud=f"{chaos_server.url}/api", token="t")
        first.run(session.job("j").status())
        with pytest.raises(MisuseError, match="another event loop"):
            second.run(session.job("j").status())
        assert first.run(session.job("j").status()).status is JobStatus.WORKING
        first.run(session.aclose())


# H8


async def test_a_task_that_fails_cancels_its_siblings_and_nothing_is_left(server, floor):
    async def fail():
        await server.until(lambda: len(server.requests) >= 5)
        raise OSError("the user's own")

    async with floor(server, limits=Limits(max_connections=5)) as this:
        server.otherwise(chaos.stall())
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                for _ in range(50):
                    group.create_task(this.session.job("j-1").status())
                group.create_task(fail())
        assert [type(error) for error in caught.value.exceptions] == [OSError]
        assert this.slots.in_use == 0


async def test_a_scope_of_anyio_is_as_good(server, floor):
    async with floor(server, limits=Limits(max_connections=5)) as this:
        server.otherwise(chaos.stall())
        with anyio.move_on_after(0.05) as scope:
            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(this.session.job("j-1").status)
        assert scope.cancelled_caught
        assert this.slots.in_use == 0


# H9


async def test_closing_at_once_and_twice_in_the_middle_of_calls_is_bounded(server, floor):
    server.otherwise(chaos.stall())
    session = AsyncSession(cloud=f"{server.url}/api", token="t", retry=RetryPolicy(max_attempts=1))
    calls = [asyncio.create_task(session.job("j").status()) for _ in range(150)]
    await server.until(lambda: len(server.requests) == 100)
    async with asyncio.timeout(60):
        await asyncio.gather(session.aclose(), session.aclose())
        await session.aclose()
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in errors} <= {MisuseError, OutcomeUnknown}
    with pytest.raises(MisuseError, match="closed"):
        await session.job("j").status()
    await server.drained()


@pytest.mark.parametrize("call", ["look", "create"])
async def test_what_is_still_connecting_when_its_session_is_closed_is_never_sent(server, call):
    session = AsyncSession(cloud=f"{server.url}/api", token="t")
    asked = {"look": session.job("j").status, "create": lambda: session.submit(SPEC)}[call]
    with server.fill_backlog():
        task = asyncio.create_task(asked())
        while session._client is None or session._client._transport.in_use == 0:
            await asyncio.sleep(0)
        await turns(20)
        await session.aclose()
    # The server is there again: a connection that is still being made would be, and the request would go over it.
    with pytest.raises(MisuseError, match="closed"):
        await task
    assert server.requests == []
    await server.drained()


async def test_what_is_still_agreeing_on_tls_when_its_session_is_closed_is_never_sent():
    async with ChaosServer(tls=True) as server:
        may_go_on = asyncio.Event()
        server.on_connection(chaos.before_handshake(chaos.hold(may_go_on)))
        session = AsyncSession(cloud=f"{server.url}/api", token="t", ca_file=server.ca_file)
        task = asyncio.create_task(session.submit(SPEC))
        await server.until(lambda: server.open)
        await session.aclose()
        may_go_on.set()
        with pytest.raises(MisuseError, match="closed"):
            await task
        await server.drained()
        assert server.requests == []


async def test_a_create_whose_session_is_closed_at_any_turn_is_sent_or_is_told_that_it_is_not(server):
    for number in range(12):
        async with AsyncSession(cloud=f"{server.url}/api", token="t") as session:
            server.otherwise(chaos.answer(json={"status": "working"}))
            await session.job("j").status()
            server.otherwise(chaos.answer(json={"job_id": "j-1"}))
            task = asyncio.create_task(session.submit(SPEC))
            await turns(number)
            await session.aclose()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            # Either way its caller is told the truth.
            assert len(server.requests) == (1 if isinstance(result, MisuseError) else 2)
            server.requests.clear()


async def never():
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("status", "token"),
    [(503, "t"), (429, "t"), (200, never)],
    ids=["for its next try", "for the pause to end", "for a token"],
)
async def test_whoever_waits_is_told_at_once_that_the_session_is_closed(server, status, token):
    server.otherwise(chaos.answer(status, headers={"Retry-After": "50"}))
    session = AsyncSession(cloud=f"{server.url}/api", token=token)
    calls = [asyncio.create_task(session.job("j").status()) for _ in range(5)]
    if token == "t":
        await server.until(lambda: server.requests)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not any(call.done() for call in calls)
    async with asyncio.timeout(60):
        await session.aclose()
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors] == [MisuseError] * 5
    exchange = session._cloud.exchange
    assert (exchange._throttle.active, exchange._in_flight._value) == (0, exchange.limits.max_in_flight)
    await server.drained()


def test_closing_waits_for_nothing_that_a_closed_loop_has_left(chaos_server):
    chaos_server.otherwise(chaos.stall())
    session = AsyncSession(cloud=f"{chaos_server.url}/api", token="t")
    loop = asyncio.new_event_loop()

    async def cut():
        task = asyncio.create_task(session.job("j").status())
        await chaos_server.until(lambda: chaos_server.requests)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    loop.run_until_complete(cut())
    # What still closes the connection's slot is left behind, unfinished.
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(session.aclose())
        gc.collect()
    with pytest.raises(MisuseError, match="closed"):
        asyncio.run(session.ping())


async def test_closing_can_be_cancelled_at_any_turn_and_still_closes(server, cancelled_after):
    server.otherwise(chaos.answer(json={"status": "working"}))
    for number in range(20):
        session = AsyncSession(cloud=f"{server.url}/api", token="t")
        await asyncio.gather(*(session.job("j").status() for _ in range(3)))
        await cancelled_after(number, session.aclose)
        await session.aclose()
        await server.drained()
        with pytest.raises(MisuseError, match="closed"):
            await session.job("j").status()


# H10


FORGOTTEN = """
import asyncio, sys
from gts_async import AsyncSession

async def main():
    session = AsyncSession(cloud=sys.argv[1], token="TOPSECRET")
    await session.job("j").status()
    asyncio.create_task(session.job("j").wait())
    asyncio.create_task(session.list_jobs())
    await asyncio.sleep(0.1)
    print("over", flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_program_that_forgets_to_close_ends_and_is_told_so(chaos_server):
    async def slow_to_list(connection):
        is_listing = connection.request.path == "/api/userJob"
        await (chaos.stall() if is_listing else chaos.answer(json={"status": "working"}))(connection)

    chaos_server.otherwise(slow_to_list)
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", FORGOTTEN, f"{chaos_server.url}/api"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "over\n"
        # Not being closed keeps it from ending for two seconds at most, not for the sixty that its call may take; the
        # rest is for machines that are busy.
        _, said = process.communicate(timeout=2 + 28)
    assert process.returncode == 0
    assert "was not closed" in said
    warned = [line for line in said.splitlines() if "Warning" in line]
    assert warned
    assert all("ResourceWarning" in line for line in warned)
    assert "Traceback" not in said
    assert "TOPSECRET" not in said


def test_a_session_that_was_never_used_needs_no_closing():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        AsyncSession(cloud="http://127.0.0.1/api", token="t")
        gc.collect()
    assert [warning.message for warning in told] == []


# H12


@pytest.mark.parametrize("ending", [chaos.close(), chaos.reset()], ids=["FIN", "RST"])
async def test_a_connection_that_ends_as_it_is_used_again(server, floor, ending):
    async with floor(server, limits=ONE) as this:
        await this.look()
        server.on_request(ending)
        assert (await this.look()).status is JobStatus.WORKING
        assert len(server.requests) == 3
        server.on_request(ending)
        error = await this.fails(OutcomeUnknown, this.create())
        assert len(error.attempts) == 1
        assert len(server.requests) == 4
        assert error.intent is not None


@pytest.mark.parametrize("is_reset", [False, True], ids=["FIN", "RST"])
async def test_a_connection_that_ended_while_it_was_idle_is_not_used_again(server, floor, is_reset):
    async with floor(server, limits=ONE) as this:
        await this.look()
        server.hang_up(reset=is_reset)
        await server.drained()
        # Even a create, which must not be sent twice: nothing was sent on the dead connection.
        await this.create()
        assert server.connections == 2


async def test_a_silent_server_at_reuse_is_bounded_by_the_calls_time(server, floor):
    async with floor(server, limits=ONE, timeouts=Timeouts(total=0.1)) as this:
        await this.look()
        server.on_request(chaos.stall())
        await this.fails(TimedOut, this.look())
