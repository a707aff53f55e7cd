"""The benchmarks of uploads and downloads run, check what arrives, and judge what they are to judge."""

import subprocess
import sys

import attrs
import pytest

from benchmarks import download, upload
from benchmarks.file_server import FileServer, Sent
from benchmarks.promises import judge
from benchmarks.transfers import MB, Cost, median, ratio_of

SIZE = 1000 * MB
GOOD = Cost(SIZE, 1.0, 0.5, growth=5 * MB, stall=0.002, longest=0.02)
SLOWER = attrs.evolve(GOOD, seconds=3.0)


def output_of(command):
    done = subprocess.run([sys.executable, "-m", *command.split()], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


@pytest.mark.benchmark
def test_uploads_are_measured_side_by_side_and_arrive_whole():
    said = output_of("benchmarks.upload --mb 2 --rounds 1 --slow-mb 1")
    for way in ("gts_async", "httpx files=", "aiohttp", "requests"):
        assert f"\n{way} " in said
    assert "the server has the file as it is on the disk" in said


@pytest.mark.benchmark
def test_downloads_are_measured_side_by_side_and_resumed_after_cuts():
    said = output_of("benchmarks.download --mb 8 --rounds 1 --cuts 3")
    for way in ("gts_async", "httpx + anyio", "aiohttp", "gts_async, cuts"):
        assert f"\n{way} " in said


def test_medians_and_ratios_are_taken_by_round():
    costs = [attrs.evolve(GOOD, seconds=seconds, growth=None) for seconds in (3.0, 1.0, 2.0)]
    assert (median(costs).seconds, median(costs).growth) == (2.0, None)
    assert ratio_of([GOOD] * 3, costs) == 2.0


@pytest.mark.parametrize(
    ("mine", "broken"),
    [
        (GOOD, 0),
        (attrs.evolve(GOOD, seconds=2.0), 1),
        (attrs.evolve(GOOD, growth=9 * MB), 1),
        (attrs.evolve(GOOD, stall=0.011), 2),
        (attrs.evolve(GOOD, size=MB, seconds=3.0, growth=9 * MB, stall=1.0), 0),
    ],
    ids=["kept", "slow", "large", "stalling", "small files are not judged"],
)
def test_what_is_promised_of_uploads_is_judged(mine, broken, capsys):
    others = {way: [SLOWER] for way in upload.WAYS if way != upload.OURS}
    runs = {upload.OURS: [mine], **others}
    found = upload.promises(runs, runs, True)
    assert judge("uploads", found) == (broken > 0)
    assert capsys.readouterr().out.count("BROKEN") == broken
    assert judge("uploads", upload.promises(runs, runs, False)) == 1


@pytest.mark.parametrize(
    ("change", "cut", "is_same", "broken"),
    [
        ({}, Sent(21, (0,) * 20), True, 0),
        ({"seconds": 1.5}, Sent(21, (0,) * 20), True, 1),
        ({"growth": 17 * MB}, Sent(21, (0,) * 20), True, 1),
        ({}, Sent(21, (0,) * 20), False, 1),
        ({}, Sent(2, (0,)), True, 1),
        ({}, Sent(21, (0,) * 19 + ((2 << 20) + 1,)), True, 1),
    ],
    ids=["kept", "slow", "large", "another file", "fewer cuts", "sent twice"],
)
def test_what_is_promised_of_downloads_is_judged(change, cut, is_same, broken, capsys):
    runs = {way: [SLOWER] for way in download.WAYS}
    runs[download.OURS] = [attrs.evolve(GOOD, **change)]
    assert judge("downloads", download.promises(runs, 20, cut, is_same)) == (broken > 0)
    assert capsys.readouterr().out.count("BROKEN") == broken


def test_the_server_cuts_where_it_was_told_to_and_counts_what_it_sends_twice(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(bytes(100))
    server = FileServer(path=str(path))
    server.cut(3)
    assert server.next_end(0) == (25, True)
    assert server.next_end(20) == (50, True)
    assert server.next_end(50) == (75, True)
    assert server.next_end(75) == (100, False)
    assert server.sent() == Sent(4, (5, 0, 0))


def test_only_the_file_that_was_named_is_slow(tmp_path):
    slow, quick = tmp_path / "slow", tmp_path / "quick"
    code = (
        "import sys, time; from benchmarks.transfers import slow_down, SLOW_READ\n"
        "slow_down(sys.argv[1])\n"
        "for path in sys.argv[1:]:\n"
        "    with open(path, 'rb') as file:\n"
        "        began = time.perf_counter(); assert file.read(2) == b'ab'\n"
        "        print(time.perf_counter() - began >= SLOW_READ)\n"
    )
    for path in (slow, quick):
        path.write_bytes(b"abc")
    done = subprocess.run([sys.executable, "-c", code, slow, quick], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
