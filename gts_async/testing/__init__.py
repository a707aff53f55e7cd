"""What users need to test their own applications: embedded servers as fixtures, faults as data, a fake clock.

The pytest fixtures are in `plugin`, which pytest finds by itself once the package is installed.
"""

from gts_async.testing import faults
from gts_async.testing.clock import FakeClock
from gts_async.testing.faults import Fault
from gts_async.testing.transport import EmulatorTransport

__all__ = ["EmulatorTransport", "FakeClock", "Fault", "faults"]
