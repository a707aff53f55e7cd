"""What tests of several areas share."""

import asyncio
import contextlib
import gc
import subprocess
import sys

import anyio
import pytest
from hypothesis import HealthCheck, settings
from opentelemetry import trace

from tests.steady_loop import SteadyLoop

pytest_plugins = ["pytester"]

# The same examples in every run, and however long they take: no test depends on chance or on how busy a machine is.
settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")


def pytest_configure(config):
    config.addinivalue_line("markers", "ordinary_loop: runs on asyncio's own loop, for tests of loops that are blocked")


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(item):
    """Run tests on a loop whose time the machine's other work does not touch."""
    is_ordinary = item.get_closest_marker("ordinary_loop") is not None
    return {"loop": asyncio.new_event_loop if is_ordinary else SteadyLoop}


@pytest.fixture(scope="session")
def thawed():
    """Let the last collection of all look through everything again."""
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def frozen(thawed):
    """Spare collections what pytest and the files before this one hold: looking through it takes most of their time.

    Whatever a file's tests have dropped without closing it warns at the file's end at the latest.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.collect()


@pytest.fixture(scope="session")
def exporter():
    """Give where finished spans land; OpenTelemetry takes one provider per process.

    It is imported above: what tests of pytest itself import first in this process is gone after them, and the client
    would go on with another OpenTelemetry than they.
    """
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


GROWN = """
import asyncio, resource, ssl, sys
from pathlib import Path
import httpx
from gts_async._files.address import HERE
from gts_async._files.download import download
async def main():
    async with httpx.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), trust_env=False) as client:
        grown = []
        for name in "ab":
            await download(client, sys.argv[1], Path(sys.argv[2] + name), fence=HERE)
            grown.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        print(grown[1] - grown[0])
asyncio.run(main())
"""


@pytest.fixture
def grown_by_the_second():
    """Give `await grown_by_the_second(url, target)`: the bytes by which a process grows in a second download."""

    async def grown(url, target):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", GROWN, url, str(target), stdout=subprocess.PIPE
        )
        said, _ = await process.communicate()
        process._transport.close()
        return int(said) * 1024

    return grown


@pytest.fixture(params=["task", "wait_for", "timeout", "scope", "group"])
def cancelled_after(request):
    """Give ``await cancelled_after(turns, work)``: runs `work()`, cancelled from outside after so many loop turns.

    A test that asks for it runs in five styles: a native cancel, through `wait_for`, by `asyncio.timeout`, by an anyio
    scope, and because a sibling in a TaskGroup failed. What `work` ends with is passed over.
    """
    return {"task": _task, "wait_for": _wait_for, "timeout": _timeout, "scope": _scope, "group": _group}[request.param]


def _after(turns, action):
    loop = asyncio.get_running_loop()
    if turns:
        loop.call_soon(_after, turns - 1, action)
    else:
        action()


async def _task(turns, work):
    task = asyncio.ensure_future(work())
    _after(turns, task.cancel)
    await asyncio.gather(task, return_exceptions=True)


async def _wait_for(turns, work):
    async def waiting():
        await asyncio.wait_for(work(), 1000)

    await _task(turns, waiting)


async def _timeout(turns, work):
    async def bounded():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as bound:
                _after(turns, lambda: with_suppressed(bound))
                await work()

    def with_suppressed(bound):
        # RuntimeError: the block is over already.
        with contextlib.suppress(RuntimeError):
            bound.reschedule(asyncio.get_running_loop().time())

    await asyncio.gather(asyncio.ensure_future(bounded()), return_exceptions=True)


async def _scope(turns, work):
    async def scoped():
        with anyio.CancelScope() as scope:
            _after(turns, scope.cancel)
            await work()

    await asyncio.gather(asyncio.ensure_future(scoped()), return_exceptions=True)


async def _group(turns, work):
    async def fail():
        for _ in range(turns):
            await asyncio.sleep(0)
        raise OSError

    async def grouped():
        async with asyncio.TaskGroup() as group:
            group.create_task(work())
            group.create_task(fail())

    await asyncio.gather(asyncio.ensure_future(grouped()), return_exceptions=True)
