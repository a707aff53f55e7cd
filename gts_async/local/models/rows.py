"""Reads a task's data files the way the engine's training needs them: stricter than its upload and train checks.

Whatever does not fit raises an ordinary exception, and the training has failed; what a training needs beyond that is
said in the pipeline's module.
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from gts_async.emulator.backends import Model, TrainingOrder
from gts_async.local.files import FolderFiles

Row = Mapping[str, Any]


@attrs.frozen
class Trained:
    """What a pipeline gives: the model, and the accuracy on the test file if the engine's pipeline measures one."""

    model: Model
    test_acc: float | None = None


@attrs.frozen
class Split:
    """The rows of the three data files. Only `train` is learned from; the others are measured on."""

    train: Sequence[Row]
    dev: Sequence[Row]
    test: Sequence[Row]

    @classmethod
    def read(cls, order: TrainingOrder, files: FolderFiles) -> "Split":
        """Read the order's files; raises ValueError for an empty train file and for lines that are not JSON objects."""
        names = (order.train_data, order.val_data, order.test_data)
        split = cls(*(read_rows(files, order.task_id, name) for name in names))
        if not split.train:
            raise ValueError(f"{order.train_data} has no rows")
        return split

    @property
    def all(self) -> Sequence[Row]:
        """All rows, to check what every file must have."""
        return (*self.train, *self.dev, *self.test)


def read_rows(files: FolderFiles, task_id: str, name: str) -> list[Row]:
    """Give the rows of a JSON Lines file; raises KeyError if it is missing, ValueError for what is not an object."""
    lines = io.TextIOWrapper(io.BytesIO(files.read(task_id, name)), encoding="utf-8")
    rows = [json.loads(line) for line in lines]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{name}:{number}: not a JSON object")
    return rows


def text_of(row: Row, field: str, max_len: int) -> str:
    """Give the field's text, cut to `max_len` characters; numbers become text, null and lists raise TypeError."""
    value = row[field]
    if not isinstance(value, str | int | float):
        raise TypeError(f"{field}: {type(value).__name__} is not text")
    return str(value)[:max_len]


def as_string(value: object) -> str:
    """Give what bagualu reads as a string (pydantic): strings, and numbers and booleans as Python writes them."""
    if not isinstance(value, str | int | float):
        raise TypeError(f"{type(value).__name__} is not text")
    return str(value)


def as_number(value: object) -> int:
    """Give what bagualu reads as a whole number (pydantic), if 64 bits can hold it."""
    if not isinstance(value, str | int | float):
        raise TypeError(f"{type(value).__name__} is not a number")
    number = int(value)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"{number} has more than 64 bits")
    return number


def text_limit(order: TrainingOrder) -> int:
    """Give how many characters of a text are looked at: `max_len`, which the engine counts in tokens."""
    if order.max_len < 1:
        raise ValueError(f"max_len: {order.max_len} is less than 1")
    return order.max_len
