"""What the check of data files calls good is trained, and what it calls bad is refused or fails, rule by rule."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gts_async._files.preflight import examine
from gts_async._files.repair import repair
from gts_async.emulator.backends import TrainingOrder
from gts_async.emulator.engine_bodies import Crash
from gts_async.emulator.engine_checks import check_file
from gts_async.gts.values import PIPELINES, EngineType, TaskType
from gts_async.local.files import FolderFiles
from gts_async.local.models import classification, extraction, pairs, summary

BAGUALU, QIANKUNDING = EngineType.BAGUALU, EngineType.QIANKUNDING
CLASSIFICATION, SIMILARITY, NLI = TaskType.CLASSIFICATION, TaskType.SIMILARITY, TaskType.NLI
IE, SUMMARY = TaskType.IE, TaskType.SUMMARY

MODULES: dict[TaskType, Any] = {
    CLASSIFICATION: classification,
    SIMILARITY: pairs,
    NLI: pairs,
    IE: extraction,
    SUMMARY: summary,
}
KINDS = {"train.json": "train", "dev.json": "dev", "test.json": "test", "labels.json": "label"}

Row = dict[str, Any]


def person(text: str, start: int) -> Row:
    return {"entity_text": text[start : start + 2], "entity_type": "人名", "entity_index": [start, start + 2]}


def row(kind: TaskType, number: int) -> Row:
    name, place = "张李王赵"[number % 4] + "三四五六"[number // 4 % 4], "成都北京"[number % 2 * 2 :][:2]
    pair = {"id": number, "sentence1": f"{name}在{place}{number}", "sentence2": f"{name}到了{place}"}
    text = f"记者{name}昨天到了{place}，第{number}次"
    match kind:
        case TaskType.CLASSIFICATION:
            label = ["体育", "财经"][number % 2]
            return {"id": number, "content": f"{label}新闻第{number}条", "label": label}
        case TaskType.SIMILARITY:
            return {**pair, "label": "01"[number % 2]}
        case TaskType.NLI:
            return {**pair, "label": ["entailment", "contradiction", "neutral"][number % 3]}
        case TaskType.IE:
            return {"task": "实体识别", "text": text, "choice": ["人名", "地名"], "entity_list": [person(text, 2)]}
        case TaskType.SUMMARY:
            return {"text": f"{text}。大家都来了。天气很好。", "summary": text}


def dataset(kind: TaskType) -> dict[str, list[Row]]:
    files = {"train.json": range(24), "dev.json": range(24, 30), "test.json": range(30, 36)}
    made = {name: [row(kind, number) for number in numbers] for name, numbers in files.items()}
    if kind in (IE, SUMMARY):
        return made
    labels = {CLASSIFICATION: ["体育", "财经"], SIMILARITY: ["0", "1"], NLI: ["entailment", "contradiction", "neutral"]}
    return {**made, "labels.json": [{"labels": labels[kind]}]}


def lines(rows: list[Row]) -> bytes:
    return b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in rows)


def write(folder: Path, files: dict[str, list[Row]]) -> list[Path]:
    for name, rows in files.items():
        (folder / name).write_bytes(lines(rows))
    return [folder / name for name in files]


async def errors(paths: list[Path], pipeline: tuple[EngineType, TaskType]) -> list[str]:
    engine, kind = pipeline
    reports = await examine(paths, [path.name for path in paths], kind, engine)
    return [str(problem) for report in reports for problem in report.problems if not problem.is_warning]


def trains(paths: list[Path], pipeline: tuple[EngineType, TaskType], folder: Path) -> bool:
    """Tell whether the emulated engine takes the files and the embedded training succeeds."""
    engine, kind = pipeline
    names = {path.name for path in paths}
    label_data = "labels.json" if "labels.json" in names else "train.json"
    files = FolderFiles(folder / "engine")
    for path in paths:
        files.write("t", path.name, path.read_bytes())
    order = TrainingOrder(
        task_id="t",
        engine_type=engine.value,
        task_type=kind.value,
        train_data="train.json",
        val_data="dev.json",
        test_data="test.json",
        label_data=label_data,
        unlabeled_data="",
        train_mode="standard",
        max_len=128,
        max_num_epoch=1,
        min_num_epoch=1,
        seed=1,
        gpuid=0,
    )
    try:
        for name, role in KINDS.items():
            content = files.read("t", label_data if role == "label" else name)
            if check_file(kind.value, role, content) is not None:
                return False
        MODULES[kind].train(order, files)
    except (Crash, KeyError, ValueError, TypeError, AttributeError, IndexError):
        return False
    return True


@pytest.mark.parametrize("pipeline", sorted(PIPELINES))
async def test_what_is_called_good_is_trained(pipeline: tuple[EngineType, TaskType], tmp_path: Path) -> None:
    paths = write(tmp_path, dataset(pipeline[1]))
    assert await errors(paths, pipeline) == []
    assert trains(paths, pipeline, tmp_path)


def changed(**fields: object) -> Callable[[Row], Row]:
    return lambda one: {**one, **fields}


def lacking(*fields: str) -> Callable[[Row], Row]:
    return lambda one: {name: value for name, value in one.items() if name not in fields}


def entity(**fields: object) -> Callable[[Row], Row]:
    return lambda one: {**one, "entity_list": [{**one["entity_list"][0], **fields}]}


def at_the_start(one: Row) -> Row:
    return {**one, "entity_list": [person(one["text"], 0)]}


BAD: list[tuple[EngineType, TaskType, str, Callable[[Row], Row]]] = [
    *((engine, CLASSIFICATION, name, lacking("content")) for engine in EngineType for name in list(KINDS)[:3]),
    *((engine, CLASSIFICATION, name, lacking("label")) for engine in EngineType for name in list(KINDS)[:3]),
    *((engine, CLASSIFICATION, name, changed(label="军事")) for engine in EngineType for name in list(KINDS)[:3]),
    *((BAGUALU, CLASSIFICATION, name, lacking("id")) for name in list(KINDS)[:3]),
    (BAGUALU, CLASSIFICATION, "train.json", changed(id="a1")),
    (QIANKUNDING, CLASSIFICATION, "train.json", changed(label=5)),
    (QIANKUNDING, CLASSIFICATION, "dev.json", changed(label="体育 ")),
    (QIANKUNDING, CLASSIFICATION, "train.json", changed(content=None)),
    (QIANKUNDING, CLASSIFICATION, "labels.json", lacking("labels")),
    (QIANKUNDING, CLASSIFICATION, "labels.json", changed(labels=[])),
    (QIANKUNDING, CLASSIFICATION, "labels.json", changed(labels=None)),
    *((QIANKUNDING, SIMILARITY, name, lacking("id")) for name in list(KINDS)[:3]),
    *((QIANKUNDING, SIMILARITY, name, changed(label=1)) for name in list(KINDS)[:3]),
    *((QIANKUNDING, SIMILARITY, name, lacking("label")) for name in list(KINDS)[:3]),
    (QIANKUNDING, SIMILARITY, "train.json", changed(label="yes")),
    (QIANKUNDING, SIMILARITY, "train.json", lacking("sentence2")),
    *((QIANKUNDING, NLI, name, lacking("label")) for name in list(KINDS)[:3]),
    (QIANKUNDING, NLI, "train.json", lacking("id")),
    (QIANKUNDING, NLI, "train.json", changed(label="yes")),
    (QIANKUNDING, NLI, "train.json", changed(sentence1=[])),
    *((BAGUALU, IE, name, lacking("entity_list")) for name in list(KINDS)[:3]),
    (BAGUALU, IE, "train.json", changed(task="xx")),
    (BAGUALU, IE, "train.json", changed(text="", entity_list=[])),
    (BAGUALU, IE, "train.json", changed(choice=[])),
    (BAGUALU, IE, "train.json", changed(choice=["地名"])),
    (BAGUALU, IE, "train.json", at_the_start),
    (BAGUALU, IE, "train.json", entity(entity_index=[3, 5])),
    (BAGUALU, IE, "train.json", entity(entity_index=[2])),
    (BAGUALU, IE, "train.json", entity(entity_type="")),
    (BAGUALU, IE, "train.json", entity(entity_text="", entity_index=[90, 91])),
    *((BAGUALU, SUMMARY, name, lacking("summary")) for name in list(KINDS)[:3]),
    (BAGUALU, SUMMARY, "train.json", lacking("text")),
    (BAGUALU, SUMMARY, "train.json", changed(summary=None)),
]


@pytest.mark.parametrize(("engine", "kind", "name", "break_row"), BAD)
@pytest.mark.parametrize("is_whole", [False, True], ids=["one row", "every row"])
async def test_what_is_called_bad_is_refused_or_fails(
    engine: EngineType, kind: TaskType, name: str, break_row: Callable[[Row], Row], is_whole: bool, tmp_path: Path
) -> None:
    files = dataset(kind)
    rows = files[name]
    files[name] = [break_row(one) if is_whole or place == len(rows) - 1 else one for place, one in enumerate(rows)]
    paths = write(tmp_path, files)
    assert await errors(paths, (engine, kind)) != []
    assert not trains(paths, (engine, kind), tmp_path)


ENCODED: dict[str, Callable[[bytes], bytes]] = {
    "byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "blank line at the end": lambda content: content + b"\n",
    "blank line inside": lambda content: content.replace(b"\n", b"\n \n", 1),
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "UTF-16, no mark": lambda content: content.decode().encode("utf-16-le"),
    "UTF-32": lambda content: content.decode().encode("utf-32"),
    "GBK": lambda content: content.decode().encode("gbk"),
    "an array": lambda content: b"[" + b",".join(content.splitlines()) + b"]",
    "several lines": lambda content: content.replace(b", ", b",\n"),
    "single quotes": lambda content: content.replace(b'"', b"'"),
    "a trailing comma": lambda content: content.replace(b"}", b",}", 1),
    "commas between": lambda content: content.replace(b"}\n", b"},\n"),
    "NUL": lambda content: content.replace("记".encode(), b"\0").replace("新".encode(), b"\0"),
    "a number": lambda content: content + b"5\n",
    "null": lambda content: content + b"null\n",
    "cut off": lambda content: content[:-9],
    "empty": lambda content: b"",
    "CSV": lambda content: b"content,label\na,b\n",
}
FIXED = frozenset(
    ["byte order mark", "blank line at the end", "blank line inside", "UTF-16", "UTF-16, no mark", "UTF-32", "GBK"]
) | {"an array", "several lines", "commas between"}


@pytest.mark.parametrize("pipeline", [(QIANKUNDING, CLASSIFICATION), (BAGUALU, SUMMARY)])
@pytest.mark.parametrize("way", ENCODED)
async def test_what_cannot_be_read_is_bad_and_good_once_it_is_fixed(
    pipeline: tuple[EngineType, TaskType], way: str, tmp_path: Path
) -> None:
    engine, kind = pipeline
    paths = write(tmp_path, dataset(kind))
    paths[0].write_bytes(ENCODED[way](paths[0].read_bytes()))
    assert await errors(paths, pipeline) != []
    assert not trains(paths, pipeline, tmp_path)
    copies = await repair(paths, tmp_path / "fixed", kind, engine)
    fixed = [copy.target for copy in copies if copy.target is not None]
    is_fixed = way in FIXED
    assert (await errors(fixed, pipeline) == [] and len(fixed) == len(paths)) == is_fixed
    if is_fixed:
        assert trains(fixed, pipeline, tmp_path)


WITH_IDS = [(BAGUALU, CLASSIFICATION), (QIANKUNDING, SIMILARITY), (QIANKUNDING, NLI)]


@pytest.mark.parametrize("pipeline", WITH_IDS)
async def test_missing_ids_and_labels_that_are_numbers_are_mended(
    pipeline: tuple[EngineType, TaskType], tmp_path: Path
) -> None:
    engine, kind = pipeline
    files = dataset(kind)
    number = {"体育": 0, "财经": 1, "0": 0, "1": 1}
    for name in list(KINDS)[:3]:
        files[name] = [lacking("id")({**one, "label": number.get(one["label"], one["label"])}) for one in files[name]]
    if kind is CLASSIFICATION:
        files["labels.json"] = [{"labels": [0, 1]}]
    paths = write(tmp_path, files)
    assert not trains(paths, pipeline, tmp_path)
    copies = await repair(paths, tmp_path / "fixed", kind, engine)
    fixed = [copy.target for copy in copies if copy.target is not None]
    assert await errors(fixed, pipeline) == []
    assert trains(fixed, pipeline, tmp_path)
