"""All six pipelines really trained, each in its process, on rows drawn from small tables; what the models answer."""

import contextlib
import json
import math
import random
import time

import pytest

from gts_async.emulator.backends import Stage, TrainingOrder
from gts_async.local.files import FolderFiles
from gts_async.local.sample import LABELS, sample_rows, write_sample
from gts_async.local.trainer import LocalTrainer

pytestmark = pytest.mark.slow

NAMES = [family + given for family in "王李张刘陈杨赵黄周吴" for given in ("伟", "秀英", "敏", "志强", "娜", "浩然")]
CITIES = ["杭州", "成都", "西安", "武汉", "青岛", "苏州", "厦门", "昆明", "长沙", "哈尔滨", "呼和浩特", "大理"]
FIRMS = [a + b for a in ("星河", "远山", "蓝海", "青禾", "启明") for b in ("科技公司", "医院", "出版社", "研究院")]
DEEDS = {"跑步": "锻炼身体", "买了两斤苹果": "买水果", "看小说": "看书", "修电脑": "摆弄机器", "做晚饭": "下厨"}
ASKS = {"怎么": "如何", "能不能": "可以", "什么时候": "几点", "在哪里": "什么地方"}
MATTERS = ["退款", "改密码", "还信用卡", "预约挂号", "开发票", "查快递", "办护照", "换手机号", "取消订单", "交电费"]


def similarity(chance, number):
    ask, matter, label = chance.choice(list(ASKS)), chance.choice(MATTERS), chance.choice("01")
    other = chance.choice([one for one in MATTERS if one != matter])
    second = f"{ASKS[ask]}{matter}呢" if label == "1" else f"{ask}{other}"
    return {"id": number, "sentence1": f"请问{ask}{matter}", "sentence2": second, "label": label}


def nli(chance, number):
    name, place, deed = chance.choice(NAMES), chance.choice(CITIES), chance.choice(list(DEEDS))
    label = chance.choice(["entailment", "contradiction", "neutral"])
    seconds = {
        "entailment": [f"{name}在{place}", f"有人在{place}{deed}", f"{name}{DEEDS[deed]}"],
        "contradiction": [f"{name}没有{deed}", f"{name}不在{place}", f"没有人在{place}"],
        "neutral": [f"{name}很高兴", f"{name}明天还会去{place}", f"{chance.choice(NAMES)}也喜欢{deed}"],
    }
    first = f"{name}在{place}{deed}"
    return {"id": number, "sentence1": first, "sentence2": chance.choice(seconds[label]), "label": label}


def entity(text, words, kind):
    start = text.index(words)
    return {"entity_text": words, "entity_type": kind, "entity_index": [start, start + len(words)]}


def ie(chance, number):
    (name, other), city, firm = chance.sample(NAMES, 2), chance.choice(CITIES), chance.choice(FIRMS)
    if number % 2:
        text = chance.choice([f"昨天{name}从{city}出发，去{firm}开会", f"记者{name}在{city}采访了{firm}的员工"])
        found = [entity(text, name, "人名"), entity(text, city, "地名"), entity(text, firm, "机构")]
        return {"task": "实体识别", "text": text, "choice": ["人名", "地名", "机构"], "entity_list": found}
    text, predicate, subject, thing = chance.choice(
        [
            (f"当年{name}创办了{firm}，{other}后来加入", "创始人", (firm, "机构"), (name, "人名")),
            (f"位于{city}的{firm}由{name}创立", "创始人", (firm, "机构"), (name, "人名")),
            (f"演员{name}出生于{city}，如今和{other}合作", "出生地", (name, "人名"), (city, "地名")),
        ]
    )
    relation = {"predicate": predicate, "subject": entity(text, *subject), "object": entity(text, *thing)}
    choice = [["机构", "创始人", "人名"], ["人名", "出生地", "地名"]]
    return {"task": "关系抽取", "text": text, "choice": choice, "spo_list": [relation]}


def summary(chance, _number):
    name, city, firm = chance.choice(NAMES), chance.choice(CITIES), chance.choice(FIRMS)
    news = chance.choice([f"{city}将新建一座{firm}", f"{firm}在{city}招聘三百人", f"{name}被{firm}授予终身成就奖"])
    rest = ["近日天气转凉", "不少市民在网上讨论了很久", "有关负责人在会上介绍了情况", "专家认为影响还有待观察"]
    chance.shuffle(rest)
    sentences = [rest[0], news, *rest[1:]] if chance.random() < 0.3 else [news, *rest]
    return {"text": "。".join(sentences) + "。", "summary": news}


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def drawn(make, rows, seed):
    chance = random.Random(seed)
    return [make(chance, number) for number in range(rows)]


DRAWN = {"similarity": similarity, "nli": nli, "ie": ie, "summary": summary}
PIPELINES = {
    "qk-classification": ("qiankunding", "classification"),
    "qk-similarity": ("qiankunding", "similarity"),
    "qk-nli": ("qiankunding", "nli"),
    "bg-classification": ("bagualu", "classification"),
    "bg-ie": ("bagualu", "ie"),
    "bg-summary": ("bagualu", "summary"),
}


def order(task_id, engine, task, **changes):
    numbers = {"max_len": 512, "max_num_epoch": 3, "min_num_epoch": 3, "seed": 42, "gpuid": 0}
    names = {"train_data": "train.json", "val_data": "dev.json", "test_data": "test.json"}
    names |= {"label_data": "labels.json", "unlabeled_data": "", "train_mode": "standard"}
    return TrainingOrder(task_id=task_id, engine_type=engine, task_type=task, **(names | numbers | changes))


def settled(trainer, pid, seconds=30.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = trainer.state(pid, 0.0)
        if state.stage not in (Stage.STARTING, Stage.TRAINING):
            return state
        time.sleep(0.02)
    pytest.fail(f"still {state.stage} after {seconds} s")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All trainings at once: their final states and a loaded model each."""
    root = tmp_path_factory.mktemp("engine")
    files = FolderFiles(root)
    sample = write_sample(tmp_path_factory.mktemp("sample"))
    runs = dict(PIPELINES) | {"again": PIPELINES["qk-classification"], "taught": PIPELINES["qk-classification"]}
    with contextlib.closing(LocalTrainer(root)) as trainer:
        pids = {}
        for task_id, (engine, task) in runs.items():
            if task == "classification":
                contents = {path.name: path.read_bytes() for path in sample}
                contents["more.json"] = lines(sample_rows(500))
            else:
                parts = {"train.json": (240, 1), "dev.json": (40, 2), "test.json": (80, 3)}
                contents = {name: lines(drawn(DRAWN[task], *part)) for name, part in parts.items()}
            for name, content in contents.items():
                files.write(task_id, name, content)
            changes = {"train_mode": "advanced", "unlabeled_data": "more.json"} if task_id == "taught" else {}
            pids[task_id] = trainer.start(order(task_id, engine, task, **changes), 0.0)
        states = {task_id: settled(trainer, pid) for task_id, pid in pids.items()}
        yield {task_id: (state, trainer.load(task_id)) for task_id, state in states.items()}


LEAST = {"qk-classification": 0.85, "qk-similarity": 0.9, "qk-nli": 0.8}


@pytest.mark.parametrize("task_id", PIPELINES)
def test_each_pipeline_trains_and_only_qiankunding_tells_an_accuracy(trained, task_id):
    state, _ = trained[task_id]
    assert state.stage is Stage.SUCCEEDED
    if task_id in LEAST:
        assert LEAST[task_id] <= state.test_acc <= 1.0
    else:
        assert state.test_acc is None


def test_the_sample_data_set_is_neither_trivial_nor_hopeless(trained):
    assert 0.85 <= trained["qk-classification"][0].test_acc <= 0.97


def test_two_processes_with_the_same_seed_make_the_same_model(trained):
    rows = sample_rows(50)
    assert trained["again"][0] == trained["qk-classification"][0]
    assert trained["again"][1].predict(rows) == trained["qk-classification"][1].predict(rows)


def test_the_advanced_mode_makes_another_model_from_the_unlabeled_texts(trained):
    state, model = trained["taught"]
    rows = sample_rows(50)
    assert state.test_acc >= 0.8
    assert model.predict(rows) != trained["qk-classification"][1].predict(rows)


LABELS_OF = {
    "qk-classification": LABELS,
    "bg-classification": LABELS,
    "qk-similarity": ("0", "1"),
    "qk-nli": ("entailment", "contradiction", "neutral"),
}


@pytest.mark.parametrize("task_id", LABELS_OF)
def test_probabilities_are_in_the_order_of_the_labels_and_sum_to_one(trained, task_id):
    labels = LABELS_OF[task_id]
    task = PIPELINES[task_id][1]
    rows = sample_rows(64) if task == "classification" else drawn(DRAWN[task], 64, 9)
    result = trained[task_id][1].predict(rows)
    assert list(result) == ["predictions", "probabilities"]
    assert len(result["predictions"]) == len(result["probabilities"]) == 64
    for label, chances in zip(result["predictions"], result["probabilities"], strict=True):
        assert [type(chance) for chance in chances] == [float] * len(labels)
        assert all(math.isfinite(chance) and 0 <= chance <= 1 for chance in chances)
        assert sum(chances) == pytest.approx(1.0)
        assert label == labels[chances.index(max(chances))]
    assert set(result["predictions"]) <= set(labels)
    json.dumps(result, allow_nan=False)


def test_predictions_are_mostly_right(trained):
    rows = drawn(nli, 100, 9)
    right = trained["qk-nli"][1].predict(rows)["predictions"]
    assert sum(row["label"] == label for row, label in zip(rows, right, strict=True)) >= 80


@pytest.mark.parametrize(
    ("task_id", "result"),
    [
        ("qk-classification", {"predictions": [], "probabilities": []}),
        ("qk-nli", {"predictions": [], "probabilities": []}),
        ("bg-classification", None),
        ("bg-ie", []),
        ("bg-summary", {}),
    ],
)
def test_nothing_to_predict_has_its_own_shape_in_each_pipeline(trained, task_id, result):
    assert trained[task_id][1].predict([]) == result


def test_similarity_fails_on_nothing_to_predict_as_the_engine_does(trained):
    with pytest.raises(ValueError, match="empty list"):
        trained["qk-similarity"][1].predict([])


@pytest.mark.parametrize("task_id", ["qk-similarity", "qk-nli"])
@pytest.mark.parametrize("label", [None, 0, "maybe"])
def test_a_pair_without_one_of_the_tasks_labels_cannot_be_predicted(trained, task_id, label):
    row = {"sentence1": "甲", "sentence2": "乙"} | ({} if label is None else {"label": label})
    with pytest.raises(KeyError):
        trained[task_id][1].predict([row])


@pytest.mark.parametrize("task_id", ["qk-classification", "bg-classification"])
@pytest.mark.parametrize("content", [None, ["a"], {"a": 1}])
def test_content_that_is_no_text_cannot_be_predicted(trained, task_id, content):
    with pytest.raises(TypeError):
        trained[task_id][1].predict([{"content": content}])


@pytest.mark.parametrize("row", [{"content": ""}, {"content": 5}, {"content": "长" * 5000}, {"content": "a", "id": 7}])
def test_odd_content_is_predicted(trained, row):
    assert len(trained["qk-classification"][1].predict([row])["predictions"]) == 1


def test_entities_are_found_with_their_place_in_the_text(trained):
    rows = [row for row in drawn(ie, 60, 9) if row["task"] == "实体识别"]
    asked = [{key: row[key] for key in ("task", "text", "choice")} for row in rows]
    result = trained["bg-ie"][1].predict(asked)
    right = 0
    for row, document in zip(rows, result, strict=True):
        assert list(document) == ["task", "text", "entity_list", "spo_list", "choice"]
        assert (document["task"], document["text"], document["choice"]) == (row["task"], row["text"], row["choice"])
        assert document["spo_list"] == []
        for found in document["entity_list"]:
            assert_entity(found, row["text"], row["choice"])
            right += {key: found[key] for key in found if key != "score"} in row["entity_list"]
    assert right >= 0.9 * sum(len(row["entity_list"]) for row in rows)


def assert_entity(found, text, types):
    assert list(found) == ["entity_text", "entity_type", "entity_index", "score"]
    start, stop = found["entity_index"]
    assert text[start:stop] == found["entity_text"] != ""
    assert found["entity_type"] in types
    assert 0 < found["score"] <= 1


def test_relations_are_found_between_entities_of_the_types_asked_for(trained):
    rows = [row for row in drawn(ie, 60, 9) if row["task"] == "关系抽取"]
    right = 0
    for row, document in zip(rows, trained["bg-ie"][1].predict(rows), strict=True):
        expected = row["spo_list"][0]
        for found in document["spo_list"]:
            assert list(found) == ["predicate", "subject", "object", "score"]
            assert found["subject"] in document["entity_list"]
            assert found["object"] in document["entity_list"]
            triple = [found["subject"]["entity_type"], found["predicate"], found["object"]["entity_type"]]
            assert triple in row["choice"]
            assert 0.5 <= found["score"] <= 1
        right += any(
            (found["predicate"], found["subject"]["entity_text"], found["object"]["entity_text"])
            == (expected["predicate"], expected["subject"]["entity_text"], expected["object"]["entity_text"])
            for found in document["spo_list"]
        )
    assert right >= 0.8 * len(rows)


def test_only_the_types_asked_for_are_found(trained):
    row = {"task": "实体识别", "text": "昨天王伟从大理出发，去蓝海医院开会"}
    model = trained["bg-ie"][1]
    found = [model.predict([row | {"choice": choice}])[0]["entity_list"] for choice in (["地名"], ["从没见过"])]
    assert [entity["entity_text"] for entity in found[0]] == ["大理"]
    assert found[1] == []


def test_a_flat_choice_for_relations_cannot_be_predicted(trained):
    with pytest.raises(ValueError, match="choice"):
        trained["bg-ie"][1].predict([{"task": "关系抽取", "text": "李开复", "choice": ["人名"]}])


def test_summaries_are_keyed_by_row_and_made_of_the_text(trained):
    rows = drawn(summary, 40, 9)
    result = trained["bg-summary"][1].predict([row | {"summary": ""} for row in rows])
    assert list(result) == [str(place) for place in range(40)]
    assert all(result[str(place)] in row["text"] for place, row in enumerate(rows))
    assert sum(result[str(place)].rstrip("。") == row["summary"] for place, row in enumerate(rows)) >= 24


@pytest.mark.parametrize(("text", "expected"), [("", ""), ("。", "。"), ("只有一句", "只有一句")])
def test_a_text_with_nothing_to_choose_is_its_own_summary(trained, text, expected):
    assert trained["bg-summary"][1].predict([{"text": text, "summary": ""}]) == {"0": expected}
