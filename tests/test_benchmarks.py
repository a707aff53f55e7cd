"""The benchmarks run; what they measure is nobody's assertion."""

import subprocess
import sys


def test_the_cost_of_a_request_is_measured_side_by_side():
    command = [sys.executable, "-m", "benchmarks.requests_cpu", "--rounds", "1", "--requests", "64"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    header, *rows = done.stdout.splitlines()
    assert "gts_async" in header
    assert [row.split()[0] for row in rows] == ["1", "16", "64"]
