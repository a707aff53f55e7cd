"""The pytest plugin: fixtures for an engine, a cloud and a session that need neither network nor real time.

``embedded_engine`` and ``embedded_cloud`` are the other kind: real servers on loopback that train and run for real. And
``chaos_server`` and ``chaos_tls_server`` do to their clients what a test says. Everything heavy is imported by the
fixture that needs it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gts_async import AsyncSession
    from gts_async.emulator.cloud import Cloud
    from gts_async.emulator.engine import Engine
    from gts_async.emulator.scripted import ScriptedTrainer
    from gts_async.emulator.scripted_jobs import ScriptedRunner
    from gts_async.emulator.store import ObjectStore
    from gts_async.local.stack import EmbeddedCloud, EmbeddedEngine
    from gts_async.testing._chaos.server import ChaosServer
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
def gts_trainer() -> "ScriptedTrainer":
    """Give what trains for `gts_engine`; its `plan` says how the next trainings go."""
    from gts_async.emulator.scripted import MemoryFiles, ScriptedTrainer

    return ScriptedTrainer(MemoryFiles())


@pytest.fixture
def gts_engine(gts_trainer: "ScriptedTrainer") -> "Engine":
    """Give a pure GTS Engine that behaves as the real one; `gts_session` talks to it."""
    from gts_async.emulator.engine import Engine
    from gts_async.emulator.scripted import MemoryFiles

    # The same files, so that its models answer with the labels that were uploaded.
    return Engine(gts_trainer.files or MemoryFiles(), gts_trainer)


@pytest.fixture
def sxwl_store() -> "ObjectStore":
    """Give the object store in which `sxwl_cloud` puts its jobs' models."""
    from gts_async.emulator.store import ObjectStore

    return ObjectStore(b"not a secret", STORE_URL)


@pytest.fixture
def sxwl_runner() -> "ScriptedRunner":
    """Give what runs the jobs of `sxwl_cloud`; replace this fixture for other stories."""
    from gts_async.emulator.scripted_jobs import ScriptedRunner

    return ScriptedRunner()


@pytest.fixture
def sxwl_cloud(sxwl_runner: "ScriptedRunner", sxwl_store: "ObjectStore") -> "Cloud":
    """Give a pure SXWL cloud of the documented generation; `gts_session` talks to it."""
    from gts_async.emulator.cloud import Cloud

    return Cloud(sxwl_runner, sxwl_store, token=TOKEN)


@pytest.fixture
def gts_session(
    gts_engine: "Engine",
    sxwl_cloud: "Cloud",
    sxwl_store: "ObjectStore",
    gts_clock: "FakeClock",
    gts_faults: "list[Fault]",
) -> "AsyncSession":
    """Give a session on the fake clock whose engine and cloud are `gts_engine` and `sxwl_cloud`."""
    from gts_async import AsyncSession
    from gts_async.testing.transport import EmulatorTransport

    servers: dict[str, Any] = {
        ENGINE_URL: gts_engine,
        CLOUD_URL.removesuffix("/api"): sxwl_cloud,
        STORE_URL: sxwl_store,
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


@pytest.fixture
def chaos_server() -> "Iterator[ChaosServer]":
    """Give a server of faults on loopback, on a thread of its own; answers ``{}`` until told otherwise."""
    from gts_async.testing._chaos.server import ChaosServer

    with ChaosServer() as server:
        yield server


@pytest.fixture
def chaos_tls_server() -> "Iterator[ChaosServer]":
    """Give the same by https, for clients that trust its `ca_file`; needs the extra ``testing``."""
    from gts_async.testing._chaos.server import ChaosServer

    with ChaosServer(tls=True) as server:
        yield server
