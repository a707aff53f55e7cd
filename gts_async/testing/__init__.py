"""What users need to test their own applications: embedded servers as fixtures, faults as data, a fake clock.

`ChaosServer` is for what no mock can show: a server on raw sockets that plays scripts of `chaos`. The pytest fixtures
are in `plugin`, which pytest finds by itself once the package is installed. Nothing here is imported before it is asked
for, so that a test run that does not use it pays nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gts_async.testing import chaos as chaos, faults as faults
    from gts_async.testing._chaos.server import ChaosServer as ChaosServer
    from gts_async.testing.clock import FakeClock as FakeClock
    from gts_async.testing.faults import Fault as Fault
    from gts_async.testing.transport import EmulatorTransport as EmulatorTransport

_HOME = {"ChaosServer": "_chaos.server", "EmulatorTransport": "transport", "FakeClock": "clock", "Fault": "faults"}
_MODULES = ("chaos", "faults")

__all__ = ["ChaosServer", "EmulatorTransport", "FakeClock", "Fault", "chaos", "faults"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"gts_async.testing.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'gts_async.testing' has no attribute {name!r}")
    return getattr(import_module(f"gts_async.testing.{_HOME[name]}"), name)
