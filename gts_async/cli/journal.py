"""``gts-async journal``: what a journal of ``submit_many`` holds, and how a damaged one is mended."""

from cyclopts import App

from gts_async._mending import Health, check as checked, repair as repaired
from gts_async.cli.exits import Exit
from gts_async.cli.options import Given, Options

app = App(name="journal")

LOST = (
    "note: what could not be read is not in it any more. A run over the same specs would submit those again: compare "
    "with gts-async job list first"
)


@app.command
def check(path: str, /, *, options: Given) -> int:
    """Tell what a journal holds, and whether all of it can be read; nothing is changed.

    Exit 1 if it is damaged.

    Args:
        path: the file
        options: the global ones
    """
    health = checked(path)
    _show(health, options)
    return Exit.OK if health.is_sound else Exit.FAILED


@app.command
def repair(path: str, /, *, options: Given) -> int:
    """Save what can be read of a damaged journal into a sound one; the damaged one is kept beside it.

    A sound journal is not touched.

    Args:
        path: the file
        options: the global ones
    """
    mended = repaired(path)
    for problem in mended.problems:
        options.show.talk(f"  {problem}", "yellow")
    _show(mended.health, options, kept_as=mended.kept_as)
    if mended.kept_as is not None:
        options.show.talk(f"the damaged one is kept as {mended.kept_as}")
        options.show.talk(LOST, "yellow")
    return Exit.OK


def _show(health: Health, options: Options, **more: object) -> None:
    record = {
        "path": health.path,
        "is_sound": health.is_sound,
        "submitted": health.submitted,
        "unknown": health.unknown,
        "in_hand": health.in_hand,
        "problems": health.problems,
        **more,
    }
    counts = f"{health.submitted} submitted, {health.unknown} unknown, {health.in_hand} in hand"
    options.show.data(record, f"{health.path}  {'sound' if health.is_sound else 'damaged'}: {counts}")
    for problem in health.problems:
        options.show.talk(f"  {problem}", "yellow")
