import asyncio
import email
import email.policy
import itertools
import os
import resource
import ssl
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from gts_async._errors import FileError, FileMissing, InvalidArgument
from gts_async._files.upload import PIECE, MultipartStream, open_multipart
from gts_async._progress import Progress
from gts_async.testing import ChaosServer, chaos
from gts_async.wire import FilePart, Multipart


def form(*paths: Path, fields: tuple[tuple[str, str], ...] = (("task_id", "tnews"),)) -> Multipart:
    return Multipart(fields, tuple(("files", FilePart(path.name, str(path))) for path in paths))


async def read(stream: MultipartStream) -> bytes:
    return b"".join([chunk async for chunk in stream.chunks()])


def parsed(stream: MultipartStream, body: bytes) -> list[tuple[str | None, str | None, bytes]]:
    """Read a form back with the standard library's parser."""
    head = f"Content-Type: {stream.content_type}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    return [
        (part.get_param("name", header="content-disposition"), part.get_filename(), part.get_payload(decode=True))
        for part in message.iter_parts()
    ]


SIZES = [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE]


@pytest.mark.parametrize("size", SIZES)
async def test_the_announced_length_is_exact_and_the_form_reads_back(tmp_path: Path, size: int) -> None:
    content = os.urandom(size).replace(b"\r", b" ").replace(b"\n", b" ")
    first, second = tmp_path / "train.json", tmp_path / "dev.json"
    first.write_bytes(content)
    second.write_bytes(b"{}")
    async with await open_multipart(form(first, second)) as stream:
        body = await read(stream)
    assert len(body) == stream.length
    assert parsed(stream, body) == [
        ("task_id", None, b"tnews"),
        ("files", "train.json", content),
        ("files", "dev.json", b"{}"),
    ]


async def test_a_file_name_travels_as_plain_quoted_utf8(tmp_path: Path) -> None:
    path = tmp_path / "训练.json"
    path.write_bytes(b"{}")
    stream = await open_multipart(form(path))
    body = await read(stream)
    assert 'name="files"; filename="训练.json"\r\n'.encode() in body
    assert b"filename*" not in body
    assert len(body) == stream.length


async def test_a_form_may_have_no_files_at_all() -> None:
    stream = await open_multipart(Multipart((("a", "1"), ("b", "二")), ()))
    assert parsed(stream, await read(stream)) == [("a", None, b"1"), ("b", None, "二".encode())]


async def test_httpx_sends_the_length_and_not_chunks(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"x" * 100)
    seen: list[httpx.Request] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        await request.aread()
        seen.append(request)
        return httpx.Response(200)

    async with (
        await open_multipart(form(path)) as stream,
        httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client,
    ):
        headers = {"content-type": stream.content_type, "content-length": str(stream.length)}
        for _ in range(2):
            await client.post("http://engine/api/upfiles", content=stream.chunks(), headers=headers)
    for request in seen:
        assert request.headers["content-length"] == str(stream.length) == str(len(request.content))
        assert "transfer-encoding" not in request.headers
    assert seen[0].content == seen[1].content


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: os.mkfifo(path)])
async def test_what_is_not_a_regular_file_is_refused_by_name(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "train.json"
    make(path)
    with pytest.raises(FileMissing, match=r"train\.json") as caught:
        await open_multipart(form(path))
    assert caught.value.path == str(path)
    assert isinstance(caught.value, FileNotFoundError)


async def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.json").write_bytes(b"{}")
    with pytest.raises(InvalidArgument, match="twice"):
        await open_multipart(form(tmp_path / "a/x.json", tmp_path / "b/x.json"))


@pytest.mark.parametrize("name", ['a"b', "a\r\nX: y", "a\0b", "", "a\\b"])
async def test_a_name_that_would_break_out_of_its_quotes_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"")
    with pytest.raises(InvalidArgument):
        await open_multipart(Multipart((), (("files", FilePart(name, str(path))),)))


def shrink(path: Path) -> None:
    os.truncate(path, PIECE)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def rewrite(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(b"z" * size)
    os.utime(path, ns=(1, 1))


def swap(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.replace(other, path)


CHANGES = [(change, when) for change in (shrink, grow, rewrite) for when in (0, 1, 3)]


@pytest.mark.parametrize(("change", "when"), [*CHANGES, (swap, 0)])
async def test_a_file_that_changes_never_ends_a_body(
    tmp_path: Path, change: Callable[[Path], None], when: int, nothing_left: Callable[[], None]
) -> None:
    path = tmp_path / "train.json"
    path.write_bytes(b"x" * (8 * PIECE))
    stream = await open_multipart(form(path))
    chunks = stream.chunks()
    got = [await anext(chunks) for _ in range(when)]
    change(path)
    with pytest.raises(FileError) as caught:
        got.extend([chunk async for chunk in chunks])
    assert caught.value.path == str(path)
    body = b"".join(got)
    assert len(body) < stream.length
    assert not body.endswith(b"--\r\n")


async def test_a_file_removed_between_two_tries_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_bytes(b"{}")
    stream = await open_multipart(form(path))
    await read(stream)
    path.unlink()
    with pytest.raises(FileMissing, match=r"train\.json"):
        await read(stream)


async def test_progress_tells_what_has_left_and_ends_at_the_length(tmp_path: Path) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        path.write_bytes(b"x" * (2 * PIECE))
    told: list[Progress] = []
    stream = await open_multipart(form(*paths), progress=told.append)
    chunks = stream.chunks()
    first = await anext(chunks)
    assert told == []
    await anext(chunks)
    assert told == [Progress("a.json", len(first), stream.length)]
    async for _ in chunks:
        pass
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert told[-1] == Progress("b.json", stream.length, stream.length)
    assert not any(p.is_acknowledged for p in told)


async def test_other_tasks_run_between_all_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"x" * (16 * PIECE))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(other())
    stream = await open_multipart(form(path))
    seen = [turns]
    async for _ in stream:
        seen.append(turns)
    task.cancel()
    assert all(later > earlier for earlier, later in itertools.pairwise(seen))


async def test_one_piece_is_read_ahead_while_another_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"x" * (4 * PIECE))
    stream = await open_multipart(form(path))
    chunks = stream.chunks()
    await anext(chunks)
    ahead = chunks._ahead
    assert ahead is not None
    piece = await asyncio.wrap_future(ahead)
    assert piece is not None
    assert await anext(chunks) is piece.data
    await stream.aclose()


CANCELS = ["native", "wait_for", "scope"]


async def cancelled(style: str, work: Callable[[], Coroutine[None, None, None]], ready: asyncio.Event) -> None:
    """Cancel the work once it is ready, in one of the three styles."""
    if style == "native":
        task = asyncio.ensure_future(work())
        await ready.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    elif style == "wait_for":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(work(), 0.02)
    else:
        with anyio.move_on_after(0.02) as scope:
            await work()
        assert scope.cancelled_caught


@pytest.mark.parametrize("style", CANCELS)
@pytest.mark.parametrize("after", [0, 1, 2, 5])
async def test_cancelling_leaves_no_file_and_no_thread(
    tmp_path: Path, style: str, after: int, no_tls: ssl.SSLContext, nothing_left: Callable[[], None]
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"x" * (8 * PIECE))
    ready = asyncio.Event()

    async def send() -> None:
        async with await open_multipart(form(path)) as stream:
            count = 0
            if count == after:
                ready.set()
                await asyncio.Event().wait()
            async for _ in stream.chunks():
                count += 1
                if count == after:
                    ready.set()
                    await asyncio.Event().wait()

    await cancelled(style, send, ready)
    nothing_left()


@pytest.mark.parametrize("ticks", range(12))
async def test_cancelling_at_any_tick_leaves_nothing(
    tmp_path: Path, ticks: int, nothing_left: Callable[[], None]
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"x" * (2 * PIECE))

    async def send() -> None:
        async with await open_multipart(form(path)) as stream:
            await read(stream)

    task = asyncio.ensure_future(send())
    for _ in range(ticks):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    nothing_left()


async def test_a_body_that_is_dropped_half_way_closes_its_file(
    tmp_path: Path, nothing_left: Callable[[], None]
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"x" * (8 * PIECE))
    chunks = (await open_multipart(form(path))).chunks()
    await anext(chunks)
    del chunks
    nothing_left()


async def test_a_server_that_hangs_up_half_way_leaves_nothing(
    tmp_path: Path, no_tls: ssl.SSLContext, nothing_left: Callable[[], None]
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"x" * (32 * PIECE))
    async with ChaosServer() as server, httpx.AsyncClient(verify=no_tls, trust_env=False) as client:
        server.on_connection(chaos.receive(1000), chaos.reset())
        async with await open_multipart(form(path)) as stream:
            headers = {"content-type": stream.content_type, "content-length": str(stream.length)}
            with pytest.raises(httpx.TransportError):
                await client.post(server.url, content=stream.chunks(), headers=headers)
        nothing_left()


@pytest.fixture
def few_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
async def test_a_thousand_files_are_open_one_at_a_time(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.json" for number in range(1000)]
    for path in paths:
        path.write_bytes(b"{}")
    stream = await open_multipart(form(*paths))
    assert len(await read(stream)) == stream.length
