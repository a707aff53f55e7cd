"""The submission benchmark finds what it looks for, and its cloud does to creates what it says."""

import subprocess
import sys

import attrs
import pytest

from benchmarks.batch import Specs, content_of
from benchmarks.comparison import Made, Told, compare

MADE = [Made("ai0", 0, "m0"), Made("ai1", 1, "m1"), Made("ai8a", 8, "m8a"), Made("ai8b", 8, "m8b")]
TOLD = [Told(0, "ai0"), Told(1, "ai1"), Told(8, "ai8a"), Told(8, "ai8b")]
SPECS = {0: 1, 1: 1, 8: 2}
LOST = Told(1, "", "OutcomeUnknown", "m1")


def found(made=MADE, told=TOLD, refused=None, specs=SPECS):
    """Give the findings that are not empty."""
    findings = compare(specs, made, told, refused or {})
    return {name: ones for name, ones in attrs.asdict(findings, recurse=False).items() if ones}


def test_a_ledger_that_fits_the_outcomes_shows_nothing():
    assert found() == {}
    refused = [*TOLD[:3], Told(8, "", "QuotaExceeded")]
    assert found(MADE[:3], refused, {8: 1}) == {}


@pytest.mark.parametrize(
    ("made", "told", "expected"),
    [
        ([*MADE, Made("ai1x", 1, "m1x")], TOLD, {"twice": [1], "lost": [Made("ai1x", 1, "m1x")]}),
        ([*MADE[:3], Made("ai8b", 8, "m8a")], TOLD, {"same_mark": ["m8a"]}),
        ([*MADE[:3], Made("ai8b", 8, "")], TOLD, {"unmarked": [Made("ai8b", 8, "")]}),
        (MADE[:3], TOLD, {"phantoms": [Told(8, "ai8b")]}),
        (MADE, [Told(1, "ai0"), Told(0, "ai1"), *TOLD[2:]], {"mixed_up": [Told(1, "ai0"), Told(0, "ai1")]}),
        (MADE, [*TOLD[:3], TOLD[2]], {"shared": ["ai8a"], "lost": [MADE[3]]}),
        (MADE, TOLD[:3], {"untold": [8], "lost": [MADE[3]]}),
        (MADE, [*TOLD, TOLD[0]], {"untold": [0], "shared": ["ai0"]}),
        (MADE, [*TOLD[:3], Told(8, "", "QuotaExceeded")], {"refusals": [8], "lost": [MADE[3]]}),
        (MADE[:3], [*TOLD[:3], Told(8, "", "WrongType")], {"errors": [Told(8, "", "WrongType")]}),
        (MADE[:3], [*TOLD[:3], Told(8, "", "NotSent")], {"unsent": [Told(8, "", "NotSent")]}),
        (MADE, [*TOLD[:3], Told(8, "", "NotSent")], {"unsent": [Told(8, "", "NotSent")], "lost": [MADE[3]]}),
        (MADE, [TOLD[0], LOST, *TOLD[2:]], {"unknown": [(LOST, True)]}),
        ([MADE[0], *MADE[2:]], [TOLD[0], LOST, *TOLD[2:]], {"unknown": [(LOST, False)]}),
    ],
)
def test_every_difference_is_found(made, told, expected):
    assert found(made, told) == expected


def test_a_refusal_that_nobody_was_told_of_is_found():
    assert found(refused={0: 1}) == {"refusals": [0]}


def test_specs_are_made_one_by_one_and_some_are_equal():
    specs = Specs(20, has_callbacks=True)
    made = list(specs)
    assert made[9] == made[8]
    assert len(set(made)) == 18
    assert specs.counts() == {content_of(number): 1 + (number in (8, 18)) for number in range(20) if number % 10 != 9}
    pulled = Specs(20, has_callbacks=True)
    next(iter(pulled))
    assert pulled.pulled == 1


def run(*options):
    """Give what the benchmark printed and its exit code; it must complain of nothing."""
    command = [sys.executable, "-m", "benchmarks.submit", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stderr == "", done.stdout
    return done.stdout, done.returncode


@pytest.mark.benchmark
@pytest.mark.parametrize("generation", ["2023-12", "2024-01", "2024-04"])
def test_a_batch_is_submitted_exactly_once_although_answers_are_lost(generation):
    options = ["--jobs", "60", "--faults", "0.3", "--seed", "1", "--journal"]
    said, code = run(*options, "--generation", generation, "--only", "[!s]*, made")
    assert code == 0, said
    assert "BROKEN" not in said
