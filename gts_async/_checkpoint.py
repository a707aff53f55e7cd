"""Checkpoint: the results of a stream of predictions, on disk, so that a run that was killed goes on where it was."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import msgspec

from gts_async._database import Database
from gts_async._errors import InvalidArgument
from gts_async.gts.values import Extraction, Prediction, Result, Summary

CHECKPOINT_VERSION = 2

KINDS: dict[str, type[Any]] = {"prediction": Prediction, "extraction": Extraction, "summary": Summary}


class Checkpoint:
    """The results of one stream of samples, by position; another input than last time is refused."""

    def __init__(self, path: str | os.PathLike[str], task_id: str) -> None:
        self._database = Database(
            path,
            "CREATE TABLE IF NOT EXISTS results (position INTEGER PRIMARY KEY, task_id TEXT NOT NULL,"
            " sample BLOB NOT NULL, kind TEXT NOT NULL, result TEXT NOT NULL)",
            CHECKPOINT_VERSION,
        )
        self._task_id = task_id

    async def known(self, start: int, rows: Sequence[Any]) -> dict[int, Result]:
        """Give the results that earlier runs got for `rows`, by their index in it; `start` is the first's position.

        Raises InvalidArgument if a position holds another sample, or another task's result.
        """
        found = await self._database.run(
            lambda c: c.execute(
                "SELECT position, task_id, sample, kind, result FROM results WHERE position >= ? AND position < ?",
                (start, start + len(rows)),
            ).fetchall()
        )
        results: dict[int, Result] = {}
        for position, task_id, sample, kind, result in found:
            if task_id != self._task_id or sample != _sample_key(rows[position - start]):
                raise InvalidArgument(
                    "checkpoint",
                    f"{self._database.path} holds results of another task or other samples (from sample {position})",
                    "give the input of the first run, or another file",
                )
            results[position - start] = msgspec.json.decode(result, type=KINDS[kind])
        return results

    async def keep(self, start: int, rows: Sequence[Any], results: dict[int, Result]) -> None:
        """Write down results, by their index in `rows`."""
        lines = [
            (start + i, self._task_id, _sample_key(rows[i]), type(r).__name__.lower(), msgspec.json.encode(r).decode())
            for i, r in results.items()
        ]
        await self._database.run(
            lambda c: c.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)", lines)
        )

    async def aclose(self) -> None:
        """Close the file."""
        await self._database.aclose()


def _sample_key(sample: object) -> bytes:
    return hashlib.blake2b(repr(sample).encode("utf-8", "surrogatepass"), digest_size=16).digest()
