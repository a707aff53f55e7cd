"""The labels of one data file: those that it lists, or its rows have. Files are compared in `comparing`."""

from collections.abc import Iterator

import attrs

from gts_async.gts.faults import HALF_A_PAIR, NUMBER_LABELS, Fault, is_unicode, no_string, shown
from gts_async.gts.rows import Row, label_text, reads_as_text
from gts_async.gts.values import EngineType, TaskType

MAX_LABELS, MAX_LABEL_TEXT = 20_000, 1 << 20
"""Labels that are kept to be compared, and their characters together."""

MAX_BAGUALU = 50
"""Labels with which bagualu trains: above, it samples by nearest neighbours, which fails on every data set
(`data_module_std.py: train_dataloader` calls its PairBatchSampler)."""

NUMBER_LABEL = Fault(
    "label",
    "is a number; bagualu reads and predicts it as a string",
    "write labels as strings",
    is_warning=True,
    change=NUMBER_LABELS,
)
BOOLEAN_LABEL = Fault(
    "label",
    "is true or false; bagualu reads and predicts it as Python writes it",
    "write labels as strings",
    is_warning=True,
)
MANY_LABELS = Fault(
    "label",
    f"is one of more than {MAX_LABELS} labels; the rest was not compared",
    "use fewer labels",
    is_warning=True,
)


class Labels:
    """Fed the labels of one file. `lines` has each of them, as the engine reads it, with the line of its first."""

    def __init__(self, task_type: TaskType, engine_type: EngineType) -> None:
        self.lines: dict[str, int] = {}
        self._text = 0
        self._task_type = task_type
        self._engine_type = engine_type

    def note(self, label: object, line: int) -> Iterator[Fault]:
        """Note a row's label; gives what is doubtful about it, which is no error."""
        if reads_as_text(self._task_type, self._engine_type, label):
            yield BOOLEAN_LABEL if isinstance(label, bool) else NUMBER_LABEL
            label = str(label)
        if not isinstance(label, str) or label in self.lines:
            return
        self._text += len(label)
        if len(self.lines) < MAX_LABELS and self._text < MAX_LABEL_TEXT:
            self.lines[label] = line
        else:
            yield MANY_LABELS

    def listed(self, row: Row, line: int) -> Iterator[Fault]:
        """Read a labels file; bagualu reads every key of it as a list of labels (`gts_engine_interface_std.py`)."""
        if self._task_type in (TaskType.IE, TaskType.SUMMARY):
            what = f"lists labels; the engine checks the label_data of {self._task_type} tasks as rows"
            yield Fault("", what, "name the training file there")
        labels = row["labels"]
        if self._task_type is not TaskType.CLASSIFICATION:
            # Sentence pairs bring their own labels; the engine never reads these.
            for label in labels if isinstance(labels, list) else ():
                yield from self.note(label, line)
            return
        if not isinstance(labels, list) or not labels:
            yield Fault(
                "labels", f"is {shown(labels)}, must be an array of at least one string", 'write {"labels": ["…", "…"]}'
            )
            return
        for place, label in enumerate(labels):
            yield from self._one(f"labels[{place}]", label, line)
        if self._engine_type is EngineType.BAGUALU:
            if len(labels) > MAX_BAGUALU:
                why = f"are {len(labels)}; bagualu trains with up to {MAX_BAGUALU} only"
                yield Fault("labels", why, "use fewer labels, or a task of engine_type qiankunding")
            for key, value in row.items():
                if key != "labels" and not (isinstance(value, list) and all(map(_is_text, value))):
                    yield Fault(key, "is no list of strings, which ends the training", "keep only labels")

    def _one(self, field: str, label: object, line: int) -> Iterator[Fault]:
        if not isinstance(label, str) and not reads_as_text(self._task_type, self._engine_type, label):
            change = NUMBER_LABELS if label_text(self._task_type, label) is not None else ""
            yield attrs.evolve(no_string(field, label), why=f"is {shown(label)}, must be a string", change=change)
        elif isinstance(label, str) and not is_unicode(label):
            yield Fault(field, HALF_A_PAIR, "remove that character")
        elif str(label) in self.lines:
            # Qiankunding finds the first of them for every row, and never predicts the other.
            is_fatal = self._engine_type is EngineType.BAGUALU
            yield Fault(field, f"{shown(label)} is there twice", "list every label once", is_warning=not is_fatal)
        else:
            yield from self.note(label, line)


class Probs:
    """The lengths of bagualu's `probs`, of which it makes one tensor for four rows, but where it trains.

    Most files have none at all. `length` is that of the first row, None before.
    """

    def __init__(self, *, is_fatal: bool) -> None:
        self.length: int | None = None
        self._is_fatal = is_fatal

    def faults(self, row: Row) -> Iterator[Fault]:
        """Give what is wrong with a row that is good by itself."""
        probs = row.get("probs", ())
        count = len(probs) if isinstance(probs, (list, tuple)) else 0
        if self.length is None:
            self.length = count
        if count != self.length:
            why = f"has {count} numbers, and {self.length} in the first row; bagualu needs as many in every row"
            yield Fault("probs", why, "leave it out everywhere", is_warning=not self._is_fatal)


def _is_text(value: object) -> bool:
    """Tell whether pydantic makes a string of `value`."""
    return isinstance(value, (str, int, float))
