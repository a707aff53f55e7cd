"""The pytest plugin: fixtures for an engine, a cloud and a session that need neither network nor real time.

``embedded_engine`` and ``embedded_cloud`` are the other kind: real servers on loopback that train and run for real.
Everything heavy is imported by the fixture that needs it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gts_async import AsyncSession
    from gts_async.emulator.cloud import Cloud
    from gts_async.emulator.engine import Engine
    from gts_async.local.stack import EmbeddedCloud, EmbeddedEngine
    from gts_async.testing.clock import FakeClock
    from gts_async.testing.faults import Fault

ENGINE_URL = "http://engine.test"
CLOUD_URL = "https://cloud.test/api"
STORE_URL = "https://store.test"
TOKEN = "test-token"  # noqa: S105 - of a server that lives in this process only


@pytest.fixture
def gts_clock() -> "FakeClock":
    """Give a clock that jumps to the next thing due as soon as everybody waits."""
    from gts_async.testing.clock import FakeClock

    return FakeClock()


@pytest.fixture
def gts_faults() -> "list[Fault]":
    """Give the list of faults that `gts_session` meets; empty at first."""
    return []


@pytest.fixture
def gts_engine() -> "Engine":
    """Give a pure GTS Engine with a scripted trainer, as the real one behaves; `gts_session` talks to it."""
    from gts_async.emulator.engine import Engine
    from gts_async.emulator.scripted import MemoryFiles, ScriptedTrainer

    return Engine(MemoryFiles(), ScriptedTrainer())


@pytest.fixture
def sxwl_cloud() -> "Cloud":
    """Give a pure SXWL cloud of the documented generation with scripted jobs; `gts_session` talks to it."""
    from gts_async.emulator.cloud import Cloud
    from gts_async.emulator.scripted_jobs import ScriptedRunner
    from gts_async.emulator.store import ObjectStore

    return Cloud(ScriptedRunner(), ObjectStore(b"not a secret", STORE_URL), token=TOKEN)


@pytest.fixture
def gts_session(
    gts_engine: "Engine", sxwl_cloud: "Cloud", gts_clock: "FakeClock", gts_faults: "list[Fault]"
) -> "AsyncSession":
    """Give a session on the fake clock whose engine and cloud are `gts_engine` and `sxwl_cloud`."""
    from gts_async import AsyncSession
    from gts_async.testing.transport import EmulatorTransport

    servers: dict[str, Any] = {
        ENGINE_URL: gts_engine,
        CLOUD_URL.removesuffix("/api"): sxwl_cloud,
        STORE_URL: sxwl_cloud.store,
    }
    transport = EmulatorTransport(servers, lambda: gts_clock.wall().timestamp())
    transport.faults = gts_faults
    return AsyncSession(
        engine=ENGINE_URL, cloud=CLOUD_URL, token=TOKEN, transport=transport, clock=gts_clock, chance=lambda: 0.5
    )


@pytest.fixture
def embedded_engine(tmp_path: Path) -> "Iterator[EmbeddedEngine]":
    """Give a real engine on loopback, with real training processes; `.url` is where it listens."""
    from anyio.from_thread import start_blocking_portal

    from gts_async.local.stack import EmbeddedEngine

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(EmbeddedEngine(tmp_path / "e")) as engine:
        yield engine


@pytest.fixture
def embedded_cloud(tmp_path: Path) -> "Iterator[EmbeddedCloud]":
    """Give a real cloud on loopback, whose jobs are real processes; `.url` and `.token` are its own."""
    from anyio.from_thread import start_blocking_portal

    from gts_async.local.stack import EmbeddedCloud

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(EmbeddedCloud(tmp_path / "c")) as cloud:
        yield cloud
