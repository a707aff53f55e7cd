"""A good row of each pipeline, to be spoilt by tests."""

import json
from typing import Any

from gts_async.gts.values import EngineType, TaskType

BAGUALU, QIANKUNDING = EngineType.BAGUALU, EngineType.QIANKUNDING
Pipeline = tuple[TaskType, EngineType]
PLAIN: Pipeline = (TaskType.CLASSIFICATION, QIANKUNDING)
NUMBERED: Pipeline = (TaskType.CLASSIFICATION, BAGUALU)
SIMILARITY: Pipeline = (TaskType.SIMILARITY, QIANKUNDING)
NLI: Pipeline = (TaskType.NLI, QIANKUNDING)
IE: Pipeline = (TaskType.IE, BAGUALU)
SUMMARY: Pipeline = (TaskType.SUMMARY, BAGUALU)

NEWS = {"id": 1, "content": "县城中学足球队昨天夺冠了", "label": "体育"}
PAIR = {"id": 1, "sentence1": "河边新修了一条小路", "sentence2": "河边只有这条小路了", "label": "1"}
THREE = {**PAIR, "label": "neutral"}
LONG = {"text": "这篇文章分六步讲怎样做一碗好吃的面", "summary": "六步做面"}


def ner(text: str, start: int, end: int, **changes: Any) -> dict[str, Any]:
    entity = {"entity_text": text[start:end], "entity_type": "人名", "entity_index": [start, end]}
    return {"task": "实体识别", "text": text, "entity_list": [entity], "choice": ["人名", "地点"], **changes}


def lines(*rows: object) -> list[bytes]:
    return [json.dumps(row).encode() + b"\n" for row in rows]
