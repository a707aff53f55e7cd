"""What training needs of the data, and what its numbers do: `train` is called here without a process."""

import importlib
import json

import attrs
import pytest

from gts_async.emulator.backends import TrainingOrder
from gts_async.emulator.engine_training import MODES
from gts_async.local import training
from gts_async.local.files import FolderFiles
from gts_async.local.models import classification, extraction, pairs, summary
from gts_async.local.sample import sample_rows, write_sample

TOPICS = {
    "体育": ["主队赢了决赛", "球员进了两个球", "教练换下门将", "联赛周末开球", "球迷庆祝冠军", "队长赛前受伤"],
    "美食": ["清蒸鱼很鲜", "老面馒头好吃", "火锅要配麻酱", "红烧肉炖两小时", "早餐喝豆浆", "点心又甜又软"],
    "科技": ["新芯片发布了", "手机系统升级", "电池续航更长", "软件修复漏洞", "机器人学走路", "耳机支持降噪"],
}
TAILS = ["，你怎么看", "，很多人没想到", "！", ""]
PLACES = {"张伟": "成都", "李娜": "青岛", "王强": "昆明", "赵敏": "西安", "刘洋": "厦门", "陈静": "武汉"}


def topics():
    texts = [(text + tail, topic) for topic, some in TOPICS.items() for text in some for tail in TAILS]
    return [{"id": number, "content": text, "label": label} for number, (text, label) in enumerate(texts)]


def sentence_pairs(*labels):
    negated = [f"{name}不在{place}" for name, place in PLACES.items()]
    texts = [(f"{name}在{place}", name, place) for name, place in PLACES.items()]
    made = []
    for (text, name, place), other in zip(texts, negated, strict=True):
        second = {"1": f"{name}人在{place}", "0": f"{name}想去{place}", "entailment": f"{place}有{name}"}
        second |= {"contradiction": other, "neutral": f"{name}喜欢{place}的天气"}
        made += [{"id": len(made), "sentence1": text, "sentence2": second[label], "label": label} for label in labels]
    return made


def entity(text, words, kind):
    start = text.index(words)
    return {"entity_text": words, "entity_type": kind, "entity_index": [start, start + len(words)]}


def extractions():
    made = []
    for name, place in PLACES.items():
        text = f"记者{name}昨天到了{place}采访"
        found = [entity(text, name, "人名"), entity(text, place, "地名")]
        made.append({"task": "实体识别", "text": text, "choice": ["人名", "地名"], "entity_list": found})
        text = f"演员{name}出生于{place}市"
        born = {"predicate": "出生地", "subject": entity(text, name, "人名"), "object": entity(text, place, "地名")}
        choice = [["人名", "出生地", "地名"]]
        made.append({"task": "关系抽取", "text": text, "choice": choice, "spo_list": [born]})
    return made


def summaries():
    return [
        {
            "text": f"{name}在{place}开了书店，街坊都来道贺。天气不错。大家聊到很晚。",
            "summary": f"{name}在{place}开了书店",
        }
        for name, place in PLACES.items()
    ]


ROWS = {
    "classification": topics(),
    "similarity": sentence_pairs("0", "1"),
    "nli": sentence_pairs("entailment", "contradiction", "neutral"),
    "ie": extractions(),
    "summary": summaries(),
}
MODULES = {
    "classification": classification,
    "similarity": pairs,
    "nli": pairs,
    "ie": extraction,
    "summary": summary,
}
ORDER = TrainingOrder(
    task_id="t",
    engine_type="qiankunding",
    task_type="classification",
    train_data="train.json",
    val_data="dev.json",
    test_data="test.json",
    label_data="labels.json",
    unlabeled_data="",
    train_mode="standard",
    max_len=512,
    max_num_epoch=3,
    min_num_epoch=3,
    seed=42,
    gpuid=0,
)


def test_every_pipeline_of_the_engine_is_trained_here():
    assert set(PIPELINES) == set(training.PIPELINES) == set(MODES)
    for module in training.PIPELINES.values():
        assert importlib.import_module(module).train


@pytest.mark.parametrize("task", ["classification", "ie"])
def test_bagualu_classification_and_extraction_fail_in_the_advanced_mode(tmp_path, task):
    order = attrs.evolve(ORDER, engine_type="bagualu", task_type=task, train_mode="advanced", unlabeled_data="u.json")
    note = tmp_path / "order.json"
    note.write_text(json.dumps({"root": str(tmp_path), "order": attrs.asdict(order)}), encoding="utf-8")
    assert training.main([str(note)]) == 1
    assert json.loads((tmp_path / "state.json").read_bytes()) == {"stage": "failed", "test_acc": None}


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.fixture
def train(tmp_path):
    files = FolderFiles(tmp_path)

    def train_on(engine, task, *, replaced=None, **changes):
        contents = dict.fromkeys(("train.json", "dev.json", "test.json"), lines(ROWS[task]))
        contents["labels.json"] = lines([{"labels": list(TOPICS)}])
        for name, content in (contents | (replaced or {})).items():
            files.write("t", name, content)
        order = attrs.evolve(ORDER, engine_type=engine, task_type=task, **changes)
        return MODULES[task].train(order, files)

    return train_on


PIPELINES = [
    ("qiankunding", "classification"),
    ("qiankunding", "similarity"),
    ("qiankunding", "nli"),
    ("bagualu", "classification"),
    ("bagualu", "ie"),
    ("bagualu", "summary"),
]


@pytest.mark.parametrize(("engine", "task"), PIPELINES)
def test_the_rows_that_the_rules_below_spoil_train_as_they_are(train, engine, task):
    trained = train(engine, task)
    assert (trained.test_acc is None) == (engine == "bagualu")
    if trained.test_acc is not None:
        assert 0.9 <= trained.test_acc <= 1.0


@pytest.mark.parametrize("name", ["train.json", "dev.json", "test.json"])
@pytest.mark.parametrize(
    ("engine", "task", "field", "value"),
    [
        ("qiankunding", "classification", "label", None),
        ("qiankunding", "classification", "label", "别的"),
        ("qiankunding", "classification", "content", None),
        ("bagualu", "classification", "label", None),
        ("bagualu", "classification", "id", None),
        ("bagualu", "classification", "id", "7a"),
        ("qiankunding", "similarity", "id", None),
        ("qiankunding", "similarity", "label", 1),
        ("qiankunding", "similarity", "label", None),
        ("qiankunding", "similarity", "sentence2", None),
        ("qiankunding", "nli", "label", "yes"),
        ("qiankunding", "nli", "label", None),
        ("bagualu", "ie", "entity_list", None),
        ("bagualu", "ie", "choice", ["机构"]),
        ("bagualu", "summary", "summary", None),
        ("bagualu", "summary", "text", ["not", "text"]),
    ],
)
def test_one_row_that_training_cannot_use_fails_it(train, name, engine, task, field, value):
    spoiled = dict(ROWS[task][0])
    spoiled.pop(field)
    if value is not None:
        spoiled[field] = value
    with pytest.raises((KeyError, TypeError, ValueError)):
        train(engine, task, replaced={name: lines([spoiled, *ROWS[task][1:]])})


@pytest.mark.parametrize(
    "change",
    [
        {"entity_text": "别人"},
        {"entity_index": [0, 2]},
        {"entity_type": "机构"},
    ],
)
def test_an_entity_that_is_not_what_it_says_fails_the_training(train, change):
    row, *others = ROWS["ie"]
    spoiled = row | {"entity_list": [row["entity_list"][0] | change]}
    with pytest.raises(ValueError, match=r"the text at|not in the choice"):
        train("bagualu", "ie", replaced={"train.json": lines([spoiled, *others])})


def test_a_relation_that_its_choice_does_not_name_fails_the_training(train):
    entities, row, *others = ROWS["ie"]
    spoiled = row | {"choice": [["人名", "居住地", "地名"]]}
    with pytest.raises(ValueError, match="出生地 is not in the choice"):
        train("bagualu", "ie", replaced={"train.json": lines([entities, spoiled, *others])})


@pytest.mark.parametrize(("engine", "task"), PIPELINES)
@pytest.mark.parametrize(
    "content", [b"", b"[1]\n", b"{\n}\n", b"\n", "\ufeff{}\n".encode(), '{"content": "新"}'.encode("gbk")]
)
def test_a_train_file_that_is_empty_or_no_json_lines_fails_the_training(train, engine, task, content):
    with pytest.raises((ValueError, KeyError)):
        train(engine, task, replaced={"train.json": content})


def test_crlf_line_ends_train(train):
    content = lines(ROWS["classification"]).replace(b"\n", b"\r\n")
    assert train("qiankunding", "classification", replaced={"train.json": content}).test_acc == 1.0


@pytest.mark.parametrize(
    ("rows", "labels", "fails"),
    [(16, 16, False), (15, 15, True), (15, 3, False), (14, 4, False), (14, 3, True), (13, 6, False), (12, 6, True)],
)
def test_qiankunding_classification_needs_thirty_two_neighbours(train, rows, labels, fails):
    names = [f"类{number}" for number in range(labels)]
    few = [{"content": f"第{number}条", "label": names[number % labels]} for number in range(rows)]
    files = {
        "train.json": lines(few),
        "dev.json": lines(few[:2]),
        "test.json": lines(few[2:4]),
        "labels.json": lines([{"labels": names}]),
    }
    if fails:
        with pytest.raises(ValueError, match="of 32 neighbours"):
            train("qiankunding", "classification", replaced=files)
    else:
        assert train("qiankunding", "classification", replaced=files).test_acc is not None


TAKEN = [
    ("bagualu", "classification", {"id": "77"}),
    ("bagualu", "classification", {"id": 7.0}),
    ("bagualu", "classification", {"id": True}),
    ("bagualu", "classification", {"id": " 5 "}),
    ("bagualu", "classification", {"content": 5}),
    ("bagualu", "classification", {"content": True}),
    ("qiankunding", "similarity", {"sentence2": 5}),
    ("qiankunding", "nli", {"sentence2": None}),
    ("qiankunding", "nli", {"id": "a"}),
    ("qiankunding", "nli", {"id": None}),
]


@pytest.mark.parametrize("name", ["train.json", "dev.json", "test.json"])
@pytest.mark.parametrize(("engine", "task", "changes"), TAKEN)
def test_values_that_the_engine_makes_something_of_are_taken(train, engine, task, changes, name):
    rows = [{**row, **changes} for row in ROWS[task]]
    assert train(engine, task, replaced={name: lines(rows)}).model is not None


REFUSED = [
    ("bagualu", "classification", {"id": "a1"}),
    ("bagualu", "classification", {"id": "2.0"}),
    ("bagualu", "classification", {"id": 1 << 63}),
    ("bagualu", "classification", {"id": None}),
    ("bagualu", "classification", {"content": None}),
    ("qiankunding", "classification", {"content": 5}),
    ("qiankunding", "similarity", {"sentence1": 5}),
    ("qiankunding", "nli", {"sentence1": None}),
]


@pytest.mark.parametrize("name", ["train.json", "test.json"])
@pytest.mark.parametrize(("engine", "task", "changes"), REFUSED)
def test_values_that_the_engine_makes_nothing_of_fail_the_training(train, engine, task, changes, name):
    rows = [*ROWS[task][:-1], {**ROWS[task][-1], **changes}]
    with pytest.raises((TypeError, ValueError)):
        train(engine, task, replaced={name: lines(rows)})


def test_labels_that_are_numbers_are_strings_to_bagualu(train):
    numbers = {label: number for number, label in enumerate(TOPICS)}
    rows = [{**row, "label": numbers[row["label"]]} for row in ROWS["classification"]]
    files = dict.fromkeys(("train.json", "dev.json", "test.json"), lines(rows))
    trained = train("bagualu", "classification", replaced={**files, "labels.json": lines([{"labels": [0, "1", 2]}])})
    assert trained.model.labels == ("0", "1", "2")


@pytest.mark.parametrize("names", [[f"类{number}" for number in range(51)], ["体育", "美食", "科技", "体育"]])
def test_bagualu_takes_fifty_labels_and_none_of_them_twice(train, names):
    fewer = [*TOPICS, *names[:47]] if len(names) > 4 else [*TOPICS]
    assert train("bagualu", "classification", replaced={"labels.json": lines([{"labels": fewer}])}).model is not None
    with pytest.raises(ValueError, match="labels: more than 50, or one of them twice"):
        train("bagualu", "classification", replaced={"labels.json": lines([{"labels": names}])})


def test_bagualu_classification_trains_on_a_handful_of_rows(train):
    few = {"train.json": lines(ROWS["classification"][::18])}
    assert train("bagualu", "classification", replaced=few).model.predict([{"content": "火锅"}]) is not None


@pytest.mark.parametrize("number", ["max_len", "max_num_epoch"])
def test_numbers_below_one_fail_the_training(train, number):
    with pytest.raises(ValueError, match=f"{number}: 0 is less than 1"):
        train("qiankunding", "classification", **{number: 0})


def test_numbers_beyond_all_measure_are_taken(train):
    huge = 10**30
    trained = train("qiankunding", "classification", max_len=huge, max_num_epoch=huge, min_num_epoch=-1, seed=-huge)
    assert trained.test_acc == 1.0


def probabilities(trained, count=20):
    return trained.model.predict(sample_rows(count))["probabilities"]


@pytest.mark.parametrize(("engine", "task"), [one for one in PIPELINES if one != ("bagualu", "classification")])
def test_every_epoch_trains_on(train, engine, task, caplog):
    caplog.set_level("INFO")
    train(engine, task, max_num_epoch=4, min_num_epoch=4)
    losses = [record.args[1] for record in caplog.records if record.msg.startswith("epoch")][:4]
    assert len(set(losses)) == 4
    assert max(losses) < 0.4


def test_a_fit_that_gains_nothing_more_ends_before_its_last_epoch_but_not_before_its_least(train):
    capped = train("qiankunding", "classification", max_num_epoch=60, min_num_epoch=60)
    early = train("qiankunding", "classification", max_num_epoch=60, min_num_epoch=1)
    assert probabilities(early) != probabilities(capped)
    endless = train("qiankunding", "classification", max_num_epoch=10**9, min_num_epoch=1)
    assert probabilities(early) == probabilities(endless)


def test_the_seed_decides_and_the_same_seed_repeats(train):
    first, again, other = (train("qiankunding", "classification", seed=seed) for seed in (1, 1, 2))
    assert probabilities(first) == probabilities(again)
    assert probabilities(first) != probabilities(other)


def test_bagualu_trains_longer_than_asked_when_rows_are_few(train):
    asked = train("qiankunding", "classification", max_num_epoch=1, min_num_epoch=1)
    raised = train("bagualu", "classification", max_num_epoch=1, min_num_epoch=1)
    assert probabilities(asked) != probabilities(raised)


@pytest.mark.parametrize(("engine", "task"), PIPELINES)
def test_only_the_first_max_len_characters_are_looked_at(train, engine, task):
    model = train(engine, task, max_len=4).model
    row = ROWS[task][1]
    longer = row | {name: row[name][:4] + "另外的话" for name in ("content", "sentence1", "sentence2") if name in row}
    cut = row | {name: row[name][:4] for name in ("content", "sentence1", "sentence2") if name in row}
    if "text" in row:
        longer, cut = row, row | {"text": row["text"][:4]}
    first, second = model.predict([longer]), model.predict([cut])
    if task == "ie":
        first[0].pop("text"), second[0].pop("text")
    assert first == second


def test_a_label_without_rows_is_there_with_probability_zero(train):
    labels = {"labels.json": lines([{"labels": ["没人用", *TOPICS, "也没人用"]}])}
    trained = train("qiankunding", "classification", replaced=labels)
    for row in probabilities(trained):
        assert len(row) == 5
        assert row[0] == row[4] == 0.0
        assert sum(row) == pytest.approx(1.0)


@pytest.mark.parametrize("task", ["classification", "similarity", "nli"])
def test_rows_of_one_label_only_train_a_model_that_always_gives_it(train, task):
    label = ROWS[task][0]["label"]
    same = lines([row for row in ROWS[task] if row["label"] == label])
    trained = train("qiankunding", task, replaced=dict.fromkeys(("train.json", "dev.json", "test.json"), same))
    assert trained.test_acc == 1.0
    assert set(trained.model.predict(ROWS[task])["predictions"]) == {label}


def test_the_advanced_mode_learns_words_from_the_unlabeled_texts(tmp_path):
    files = FolderFiles(tmp_path)
    for path in write_sample(tmp_path / "sample", rows=100):
        files.write("t", path.name, path.read_bytes())
    files.write("t", "more.json", lines(sample_rows(2000)))
    order = attrs.evolve(ORDER, unlabeled_data="more.json")
    plain, taught = (
        classification.train(attrs.evolve(order, train_mode=mode), files) for mode in ("standard", "advanced")
    )
    known = [len(one.model.vectorizer.vocabulary_) for one in (plain, taught)]
    assert known[0] < known[1]
    assert plain.test_acc is not None
    assert taught.test_acc is not None


def test_the_advanced_mode_without_its_file_fails(train):
    with pytest.raises(KeyError):
        train("qiankunding", "classification", train_mode="advanced", unlabeled_data="nowhere.json")


def test_a_data_file_that_would_leave_the_tasks_folder_is_refused(train):
    with pytest.raises(ValueError, match="would leave its folder"):
        train("qiankunding", "classification", train_data="../../etc/passwd")
