"""Really trained models of all six pipelines, samples without end for them, and what each makes of one sample alone.

Samples tell themselves from each other by their numbers, and by their answers: of a classification, no two are equal.
"""

import asyncio
import json
import multiprocessing
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from enum import Enum
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import attrs

from gts_async import AsyncSession, Extraction, InvalidData, Prediction, ServerFailed, UnexpectedAnswer
from gts_async.gts.values import Entity, Result
from gts_async.local.sample import sample_rows, write_sample
from gts_async.local.stack import EmbeddedEngine
from gts_async.local.trainer import LocalTrainer

PIPELINES: Mapping[str, tuple[str, str]] = {
    "topics": ("qiankunding", "classification"),
    "same": ("qiankunding", "similarity"),
    "follows": ("qiankunding", "nli"),
    "topics-of-bagualu": ("bagualu", "classification"),
    "names": ("bagualu", "ie"),
    "short": ("bagualu", "summary"),
}
"""The task of each pipeline."""

MAIN = "topics"
FILES = {"train_data": "train.json", "val_data": "dev.json", "test_data": "test.json"}

NAMES = [family + given for family in "王李张刘陈杨赵黄周吴" for given in ("伟", "秀英", "敏", "志强", "娜", "浩然")]
CITIES = ["杭州", "成都", "西安", "武汉", "青岛", "苏州", "厦门", "昆明", "长沙", "哈尔滨", "呼和浩特", "大理"]
DEEDS = ["跑步", "买苹果", "看小说", "修电脑", "做晚饭", "学游泳", "种花", "钓鱼"]
LABELS = {"similarity": ("0", "1"), "nli": ("entailment", "contradiction", "neutral")}

FEW = 2_000
"""Samples up to which the model is asked in this process; more are shared among several."""

Row = dict[str, Any]
Answer = tuple[Any, ...]
"""What a model makes of a sample, as something that can be compared."""


class Bad(Enum):
    """What may be wrong with a sample, and who says so; the value is in its text where the engine is to know it."""

    LACKS = "no text: refused by the client"
    NUMBER = "a number: refused by the client"
    SURROGATE = "no unicode: refused by the client"
    TEXT = "no mapping: refused by the client"
    NAMED = "【甲】"
    """Refused by the engine, which shows the first such row."""
    UNNAMED = "【乙】"
    """Refused by the engine, which does not show the row as it came."""
    CRASH = "【丙】"
    """The pipeline stumbles over it: 500 for the whole request."""
    ODD = "【丁】"
    """Its answer is none: probabilities that add up to 2."""


BY_CLIENT = (Bad.LACKS, Bad.NUMBER, Bad.SURROGATE, Bad.TEXT)
BY_ENGINE = (Bad.NAMED, Bad.UNNAMED, Bad.CRASH, Bad.ODD)
ERRORS: Mapping[Bad, type[Exception]] = {
    **dict.fromkeys(Bad, InvalidData),
    Bad.CRASH: ServerFailed,
    Bad.ODD: UnexpectedAnswer,
}


def bad_of(row: object) -> Bad | None:
    """Tell what is wrong with a row that reached the engine."""
    text = str(row)
    return next((bad for bad in BY_ENGINE if bad.value in text), None)


def number_of(item: object) -> int:
    """Give the number of a sample."""
    return int(item["number"] if isinstance(item, Mapping) else str(item))


@attrs.frozen
class Samples:
    """So many samples for a task; `bad` are the numbers of those that have something wrong with them."""

    task: str
    count: int
    bad: Mapping[int, Bad] = attrs.field(factory=dict)

    @classmethod
    def poisoned(cls, task: str, count: int, share: float, kinds: Sequence[Bad], seed: int) -> "Samples":
        """Give samples of which a share is bad, in all these ways."""
        chance = random.Random(seed)
        numbers = chance.sample(range(count), round(count * share))
        return cls(task, count, {number: kinds[place % len(kinds)] for place, number in enumerate(numbers)})

    def __iter__(self) -> Iterator[Any]:
        return map(self.sample, range(self.count))

    def sample(self, number: int) -> Any:
        """Give one; beyond the last it begins anew."""
        number %= self.count
        row: Row = {"number": number, **rows_of(self.task, number)}
        field = next(name for name in ("content", "text", "sentence1") if name in row)
        match self.bad.get(number):
            case None:
                return row
            case Bad.LACKS:
                del row[field]
            case Bad.NUMBER:
                row[field] = number
            case Bad.SURROGATE:
                row[field] += "\ud800"
            case Bad.TEXT:
                return str(number)
            case bad:
                row[field] += bad.value
        return row


@attrs.frozen
class _Tables:
    @cached_property
    def headlines(self) -> list[str]:
        return [row["content"] for row in sample_rows(1000)]


_TABLES = _Tables()


def rows_of(task: str, number: int) -> Row:
    """Give the row of that number, without anything to be learned from it."""
    _, kind = PIPELINES[task]
    if kind == "classification":
        first, second = _TABLES.headlines[number % 1000], _TABLES.headlines[number // 1000 % 1000]
        return {"content": f"{number:06} {first}，{second}"}
    row = _labeled(kind, number)
    return {name: row[name] for name in ("sentence1", "sentence2", "task", "text", "choice") if name in row}


def _labeled(kind: str, number: int) -> Row:
    """Give a row to train on; what it says is left to its number alone."""
    chance = random.Random(f"{kind} {number}")
    name, city, deed = chance.choice(NAMES), chance.choice(CITIES), chance.choice(DEEDS)
    if kind == "ie":
        text = f"第{number:06}天{name}从{city}出发去{deed}"
        found = [_entity(text, name, "人名"), _entity(text, city, "地名")]
        return {"task": "实体识别", "text": text, "choice": ["人名", "地名"], "entity_list": found}
    if kind == "summary":
        news = f"{name}在{city}{deed}"
        rest = ["近日天气转凉", "不少市民在网上讨论了很久", "专家认为影响还有待观察"]
        chance.shuffle(rest)
        return {"text": "。".join([f"第{number:06}号报道", news, *rest]), "summary": news}
    label = chance.choice(LABELS[kind])
    seconds = {
        "1": f"{name}去{city}{deed}了",
        "0": f"{chance.choice(NAMES)}不会{chance.choice(DEEDS)}",
        "entailment": f"{name}在{city}",
        "contradiction": f"{name}不在{city}，没{deed}",
        "neutral": f"{chance.choice(NAMES)}也喜欢{chance.choice(DEEDS)}",
    }
    first = f"{number:06}号的{name}在{city}{deed}"
    return {"id": number, "sentence1": first, "sentence2": seconds[label], "label": label}


def _entity(text: str, words: str, kind: str) -> Row:
    start = text.index(words)
    return {"entity_text": words, "entity_type": kind, "entity_index": [start, start + len(words)]}


async def train(folder: Path, tasks: Sequence[str]) -> None:
    """Have an engine train the tasks, all at once; what it made stays in `folder`."""
    async with EmbeddedEngine(folder) as engine, AsyncSession(engine=engine.url) as session:
        await asyncio.gather(*(_train(session, name) for name in tasks))


async def _train(session: AsyncSession, name: str) -> None:
    engine_type, kind = PIPELINES[name]
    task = await session.create_task(name, task_type=kind, engine_type=engine_type)
    with tempfile.TemporaryDirectory() as place:
        if kind == "classification":
            write_sample(place)
        else:
            for file, numbers in (("train", range(240)), ("dev", range(240, 280)), ("test", range(280, 320))):
                lines = (json.dumps(_labeled(kind, number), ensure_ascii=False) for number in numbers)
                Path(place, f"{file}.json").write_text("\n".join(lines), encoding="utf-8")
        await task.upload(*Path(place).iterdir())
    run = await task.train(
        train_data="train.json", val_data="dev.json", test_data="test.json", label_data=label_file(name)
    )
    await run


def label_file(task: str) -> str:
    """Give the name of the file that is to be a task's labels."""
    return "labels.json" if PIPELINES[task][1] == "classification" else "train.json"


def load(folder: Path, task: str) -> Any:
    """Give the model that was trained."""
    return LocalTrainer(folder).load(task)


def reference(folder: Path, samples: Samples, processes: int = 2) -> list[Answer | None]:
    """Ask the model itself about each sample alone, none with another; None for those that are bad."""
    if samples.count <= FEW:
        return _asked_alone(folder, samples, range(samples.count))
    step = samples.count // 64
    parts = [range(start, min(start + step, samples.count)) for start in range(0, samples.count, step)]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as workers:
        found = workers.map(partial(_asked_alone, folder, samples), parts)
        return [answer for part in found for answer in part]


def _asked_alone(folder: Path, samples: Samples, numbers: range) -> list[Answer | None]:
    model, dummy = (
        load(folder, samples.task),
        {"label": LABELS.get(PIPELINES[samples.task][1], ("",))[0], "summary": ""},
    )
    found: list[Answer | None] = []
    for number in numbers:
        row = {**rows_of(samples.task, number), **dummy}
        found.append(None if number in samples.bad else _alone(model.predict([row])))
    return found


def _alone(document: Any) -> Answer:
    """Give the only answer of what a pipeline answers."""
    if isinstance(document, list):
        entities = document[0]["entity_list"]
        return ("extraction", *((e["entity_text"], e["entity_type"], *e["entity_index"], e["score"]) for e in entities))
    if "predictions" in document:
        return ("prediction", document["predictions"][0], *document["probabilities"][0])
    return ("summary", document["0"])


def told(result: Result | None) -> Answer | None:
    """Give the same of a result of ours."""
    if isinstance(result, Prediction):
        return ("prediction", result.label, *result.probabilities)
    if isinstance(result, Extraction):
        return ("extraction", *map(_entity_told, result.entities))
    return None if result is None else ("summary", result.text)


def _entity_told(entity: Entity) -> Answer:
    return entity.text, entity.type, entity.start, entity.end, entity.score
