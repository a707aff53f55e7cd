"""The pytest plugin in a stranger's test suite."""

import subprocess
import sys

import pytest

INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


@pytest.fixture
def passed(pytester):
    """Give a function that runs a test file and checks how many tests passed."""

    def run(text, passed, **others):
        pytester.makefile(".ini", pytest=INI)
        pytester.makepyfile(text)
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-q")
        result.assert_outcomes(passed=passed, **others)
        return result

    return run


def test_a_session_talks_to_the_engine_and_the_cloud(passed):
    passed(
        """
        from gts_async import JobSpec

        async def test_engine(gts_session, gts_engine):
            task = await gts_session.create_task("t", task_type="classification", engine_type="bagualu")
            assert [task.id for task in await gts_session.list_tasks()] == ["t"]

        async def test_cloud(gts_session, gts_clock):
            spec = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image")
            job = await gts_session.submit(spec)
            info = await job.wait(deadline=3600)
            assert info.status.name == "SUCCEEDED"
            assert gts_clock.now() > 0

        async def test_every_test_has_servers_of_its_own(gts_session):
            assert await gts_session.list_tasks() == []
        """,
        passed=3,
    )


def test_faults_are_a_list_to_fill(passed):
    passed(
        """
        import pytest
        from gts_async import JobSpec, OutcomeUnknown
        from gts_async.testing import faults

        async def test_a_lost_answer(gts_session, gts_faults):
            # Cut after it was carried out, it would be found by its mark.
            gts_faults.append(faults.cut(is_after=False))
            with pytest.raises(OutcomeUnknown):
                await gts_session.submit(JobSpec(gpu_type="RTX", image_path="registry.test/image"))
        """,
        passed=1,
    )


def test_a_deadline_of_hours_takes_no_time_even_in_the_first_call(passed):
    passed(
        """
        import time
        import pytest
        from gts_async import NotFound

        async def test_first_call(gts_session):
            # Reading the settings happens in a thread, and takes none of the deadline.
            with pytest.raises(NotFound):
                await gts_session.task("nobody").wait(deadline=0.001)

        async def test_hours(gts_session, gts_clock):
            began = time.monotonic()
            await gts_clock.sleep(1e5)
            assert time.monotonic() - began < 5
        """,
        passed=2,
    )


def test_a_fixture_may_be_replaced(passed):
    passed(
        """
        import pytest
        from gts_async.testing import FakeClock

        @pytest.fixture
        def gts_clock():
            return FakeClock(autojump=False)

        async def test_it(gts_session, gts_clock):
            assert gts_session._clock is gts_clock
            assert gts_session._clock._autojump is False
        """,
        passed=1,
    )


def test_loading_the_plugin_imports_nothing_heavy(pytester):
    pytester.makepyfile(
        """
        import sys

        def test_it():
            assert "gts_async.testing.plugin" in sys.modules
            assert not {"sklearn", "uvicorn", "gts_async.local", "gts_async.emulator"} & {*sys.modules}
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "-q").assert_outcomes(passed=1)


def test_the_plugin_costs_a_test_run_that_does_not_use_it_next_to_nothing():
    code = "import sys, gts_async.testing.plugin; print([m for m in ('httpx', 'anyio', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
