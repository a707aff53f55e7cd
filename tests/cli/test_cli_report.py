import io
import json

from gts_async._net.events import Event
from gts_async.cli.demo_report import Report
from gts_async.cli.exits import Exit
from gts_async.cli.show import Show


def report_on(out: io.StringIO, *, is_json: bool = False) -> Report:
    return Report(Show(is_json=is_json, out=out, err=io.StringIO(), environ={}), lambda text: None)


def test_a_demo_without_a_failed_check_ends_well() -> None:
    out = io.StringIO()
    report = report_on(out)
    report.check("jobs", True, "19 of 20 came")
    assert report.summary() is Exit.OK
    assert "all 1 checks held" in out.getvalue()
    assert "19 of 20" not in out.getvalue()


def test_one_failed_check_makes_the_demo_fail_with_a_line_that_says_which() -> None:
    out = io.StringIO()
    report = report_on(out)
    report.check("jobs", True, "")
    report.check("callbacks", False, "19 of 20 came")
    assert report.summary() is Exit.FAILED
    assert "callbacks   FAILED: 19 of 20 came" in out.getvalue()
    assert "1 of 2 checks FAILED: callbacks" in out.getvalue()


def test_the_summary_is_one_record_with_all_that_was_counted() -> None:
    out = io.StringIO()
    report = report_on(out, is_json=True)
    report.heard(Event(kind="transition", subject="ai1"))
    report.heard(Event(kind="answered", subject="job_status"))
    report.facts.jobs = 3
    report.summary()
    (record,) = map(json.loads, out.getvalue().splitlines())
    assert (record["transitions"], record["jobs"], record["is_ok"]) == (1, 3, True)
