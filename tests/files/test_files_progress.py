import pytest

from gts_async._progress import Progress


@pytest.mark.parametrize(
    ("progress", "fraction", "text"),
    [
        (Progress("a.json", 0, 10), 0.0, "a.json: 0 of 10 bytes"),
        (Progress("a.json", 5, 10), 0.5, "a.json: 5 of 10 bytes"),
        (Progress("a.json", 1234567, None), None, "a.json: 1,234,567 of ? bytes"),
        (Progress("a.json", 0, 0, is_acknowledged=True), 1.0, "a.json: 0 of 0 bytes, done"),
        (Progress("news", 30, 20, unit="samples"), 1.0, "news: 30 of 20 samples"),
        (Progress("settled", 3, 4, unit="jobs"), 0.75, "settled: 3 of 4 jobs"),
        (Progress("news training", 2.5, 10.0, unit="seconds"), 0.25, "news training: 2 of 10 seconds"),
        (Progress("news failed", 61.0, is_acknowledged=True, unit="seconds"), None, "news failed: 61 seconds"),
    ],
)
def test_progress_tells_its_fraction_and_reads_well(progress: Progress, fraction: float | None, text: str) -> None:
    assert (progress.fraction, str(progress)) == (fraction, text)
