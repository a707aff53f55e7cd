import pytest

from gts_async._files.progress import Progress


@pytest.mark.parametrize(
    ("progress", "fraction", "text"),
    [
        (Progress("a.json", 0, 10), 0.0, "a.json: 0 of 10 bytes"),
        (Progress("a.json", 5, 10), 0.5, "a.json: 5 of 10 bytes"),
        (Progress("a.json", 1234567, None), None, "a.json: 1,234,567 of ? bytes"),
        (Progress("a.json", 0, 0, is_acknowledged=True), 1.0, "a.json: 0 of 0 bytes, done"),
    ],
)
def test_progress_tells_its_fraction_and_reads_well(progress: Progress, fraction: float | None, text: str) -> None:
    assert (progress.fraction, str(progress)) == (fraction, text)
