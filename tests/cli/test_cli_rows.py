from pathlib import Path

import pytest

from gts_async._errors import FileMissing, InvalidArgument
from gts_async.cli.rows import CHUNK, RowFile


async def test_rows_come_with_their_line_numbers_and_broken_ones_as_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"content": "一"}\n\n  \nnot json\n[1]\r\n{"content": "二"}'.encode())
    rows = RowFile(str(path))
    assert [row async for row in rows] == [{"content": "一"}, "not json", "[1]", {"content": "二"}]
    assert list(rows.numbers) == [1, 4, 5, 6]


async def test_a_row_longer_than_what_is_read_at_once_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    text = "长" * CHUNK
    path.write_text(f'{{"content": "{text}"}}\n{{"content": "短"}}\n', "utf-8")
    assert [row["content"] async for row in RowFile(str(path))] == [text, "短"]


def test_what_cannot_be_opened_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        RowFile(str(tmp_path / "nothing.jsonl"))


async def test_a_folder_is_refused(tmp_path: Path) -> None:
    rows = RowFile(str(tmp_path))
    with pytest.raises(InvalidArgument, match="cannot be read"):
        await anext(rows)
