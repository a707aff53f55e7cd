"""A pytest plugin that puts httpx2 in the place of httpx: ``python -m pytest -p tests.on_httpx2 tests/net``."""

import httpx2
import pytest

# What -p names is loaded before the plugins that are installed, some of which import httpx; had one done so already,
# this would raise RuntimeError.
httpx2.alias_httpx()


def pytest_report_header() -> str:
    """Say what stands in for httpx."""
    return f"httpx: {httpx2.__name__} {httpx2.__version__}"


def pytest_collection_finish() -> None:
    """End the run if what it would test is httpx after all."""
    from gts_async._net import client

    if client.httpx is not httpx2:
        raise pytest.UsageError(f"gts_async has got {client.httpx!r} and not httpx2")
