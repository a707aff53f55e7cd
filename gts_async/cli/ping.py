"""``gts-async ping``: is it there, is it the right thing, is the token good."""

from gts_async._errors import InvalidArgument
from gts_async.cli.exits import Exit
from gts_async.cli.options import Given


async def ping(*, options: Given) -> int:
    """Make a round trip to each configured service; see `app.HELPS`."""
    async with options.session() as session:
        times = await session.ping()
    found = {"engine": times.engine, "cloud": times.cloud}
    if not any(found.values()):
        raise InvalidArgument("engine", "is not set")
    for name, seconds in found.items():
        if seconds is not None:
            options.show.data({"service": name, "seconds": seconds}, f"{name}  {seconds * 1000:.1f} ms")
    return Exit.OK
