"""A sample data set of our own: Chinese headlines on six topics, in GTS Engine's classification format.

Every text is put together from the phrase tables below by a seeded generator, so the same arguments always give the
same files. It is for demos and tests; nothing here is real news.
"""

import itertools
import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import attrs

from gts_async._errors import InvalidArgument

MIN_ROWS = 60
MAX_ROWS = 20_000
"""The phrase tables give some 100 000 different headlines; this bound keeps drawing a new one quick."""

MIXED_SHARE = 0.15
"""The share of headlines that name two topics: one by a person, one by a thing. The verb tells which one is meant."""


class SamplePaths(NamedTuple):
    """The four files of the sample, in the order in which `Task.train` names them."""

    train: Path
    dev: Path
    test: Path
    labels: Path


@attrs.frozen
class _Topic:
    """What a topic's headlines are made of: people, what they do, things, and what is said of those."""

    who: tuple[str, ...]
    does: tuple[str, ...]
    thing: tuple[str, ...]
    state: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_TOPICS: Mapping[str, _Topic] = {
    "体育": _Topic(
        who=_words("老队长 年轻门将 女排姑娘 主教练 长跑爱好者 替补前锋 羽毛球小将 游泳队 业余球队 裁判组 后卫线"),
        does=_words(
            "在加时赛打进制胜球 连赢三局挺进决赛 因伤缺席下一轮 刷新了个人最好成绩 赛后向球迷致歉 顶住压力守住比分 "
            "带领全队完成逆转 结束了五连败 正式宣布退役 在主场输给升班马 报名参加城市马拉松 进行了封闭集训"
        ),
        thing=_words(
            "这场半决赛 新赛季联赛 马拉松赛道 乒乓球名单 越位判罚 点球大战 冬季滑雪赛 篮球转会 社区足球场 "
            "接力赛 国家队阵容 羽毛球拍 奖牌榜 热身赛"
        ),
        state=_words("打得难解难分 看得球迷大呼过瘾 终于决出冠军 因为大雨推迟开赛 一票难求 争议不断 悬念留到最后一轮"),
    ),
    "美食": _Topic(
        who=_words("面馆老板 川菜师傅 外婆 甜品店主 夜市摊主 烘焙新手 食堂大厨 火锅店 茶农 探店博主 包子铺"),
        does=_words(
            "教你做一碗酸汤面 把红烧肉炖得软糯 公开了卤水配方 每天清晨磨豆浆 用三种米酿甜酒 说出了煎鱼不破皮的窍门 "
            "推出了桂花糯米藕 坚持手工擀皮 把剩饭炒出了花样 排队两小时只为一口锅贴 做的辣椒酱卖光了 烤出了酥脆的面包"
        ),
        thing=_words(
            "这道清蒸鲈鱼 街角的牛肉粉 老面馒头 麻辣火锅底料 秋天的板栗 腌笃鲜 家常豆腐 外卖套餐 手冲咖啡 "
            "糖醋排骨 早餐煎饼 空气炸锅食谱 凉拌木耳 汤圆馅料"
        ),
        state=_words("怎么做才入味 香得邻居来敲门 要小火慢炖 好吃到舔盘子 放多少盐才合适 外酥里嫩 是小时候的味道"),
    ),
    "科技": _Topic(
        who=_words("芯片团队 程序员 手机厂商 机器人实验室 创业工程师 开源社区 卫星公司 数码评测人 研究院 算法组 黑客"),
        does=_words(
            "发布了新一代处理器 修好了困扰多年的漏洞 让机械臂学会叠衣服 演示了折叠屏原型 开放了语音模型代码 "
            "把电池续航提高一倍 宣布停止更新旧系统 测试了自动驾驶巴士 用旧手机搭了服务器 成功发射通信卫星 "
            "公布了量子实验数据 给软件加上了离线翻译"
        ),
        thing=_words(
            "这款折叠屏手机 智能手表 大模型接口 家用机器人 新系统更新 无线耳机 固态硬盘 自动驾驶汽车 人脸识别门锁 "
            "云服务器 显卡 开源编辑器 卫星网络 虚拟现实头盔"
        ),
        state=_words(
            "跑分曝光 发热问题依旧明显 支持一键升级 续航比上一代更长 出现大面积故障 开始内测 接口文档写得很清楚"
        ),
    ),
    "旅游": _Topic(
        who=_words(
            "背包客 民宿主人 自驾车队 导游小周 退休夫妻 摄影爱好者 亲子旅行团 登山向导 景区管理处 古镇居民 旅行社"
        ),
        does=_words(
            "沿着海岸线走了七天 在雪山脚下看日出 整理出三天两夜的路线 把老宅改成了客栈 错过了末班缆车 "
            "推荐了五个小众古镇 在草原上住帐篷 提醒游客避开周末 徒步穿越了峡谷 坐绿皮火车去看花海 "
            "带着孩子逛遍石窟 拍到了湖面的云海"
        ),
        thing=_words(
            "这座海岛 高原湖泊 古城门票 沙漠星空营地 环湖公路 周末短途路线 瀑布栈道 江南水乡 温泉小镇 "
            "春季赏花列车 边境口岸 国家公园 老城客栈 登山步道"
        ),
        state=_words(
            "美得像一幅画 适合慢慢逛 节假日人山人海 迎来今年第一场雪 最佳观赏期到了 游客可以免费进 藏着不为人知的风景"
        ),
    ),
    "财经": _Topic(
        who=_words("央行 基金经理 上市公司 小微企业主 证券分析师 理财顾问 审计部门 外贸商 银行网点 股东大会 保险公司"),
        does=_words(
            "下调了贷款利率 公布了第三季度财报 减持了百分之二的股份 解读了最新汇率走势 提示债券违约风险 宣布回购股票 "
            "把定期存款利率降了 完成了新一轮融资 上调了全年利润预期 被要求补缴税款 看好下半年消费板块 发行了绿色债券"
        ),
        thing=_words(
            "这只指数基金 房贷利率 黄金价格 人民币汇率 科创板新股 国债收益率 养老理财 原油期货 退税政策 "
            "年终奖个税 信用卡账单 中小银行存款 出口订单 消费券"
        ),
        state=_words(
            "连续三天下跌 创下年内新高 波动明显加大 要不要继续持有 成交额再次放大 调整方案落地 收益跑不过通胀"
        ),
    ),
    "健康": _Topic(
        who=_words("社区医生 营养师 中医专家 急诊科护士 康复教练 失眠的上班族 心内科主任 牙医 体检中心 产后妈妈 药师"),
        does=_words(
            "提醒不要空腹吃药 讲解了怎样测血压 建议每天走六千步 纠正了三个护牙误区 示范了肩颈拉伸动作 劝大家少熬夜 "
            "介绍了过敏的预防办法 解答了疫苗接种问题 教老人识别中风信号 用食疗调理脾胃 公布了体检异常指标 谈到了久坐"
        ),
        thing=_words(
            "这种维生素 春季过敏 睡眠质量 血糖仪 流感疫苗 膝盖疼痛 体检报告 近视防控 颈椎病 "
            "降压药 口腔溃疡 减重门诊 骨密度检查 心率偏快"
        ),
        state=_words("千万别忽视 需要及时就医 多数人都做错了 医生给出了解释 和熬夜有关系 不能随便停药 儿童也要注意"),
    ),
}

LABELS: tuple[str, ...] = tuple(_TOPICS)
"""The six topics, in the order of the labels file."""

_WHEN = _words("昨晚 今年 周末 最近 一大早 连续两年 刚刚 时隔十年 据说 没想到 入冬以后 为了家人")
_TAIL = _words(
    """网友纷纷点赞 原因让人意外 值得收藏 你怎么看 很多人还不知道 评论区炸开了锅 过程并不容易
    背后的故事很暖心 看完学到了 这次是认真的 内行人说了实话 别再错过了 现场画面曝光 普通人也能做到"""
)
_ASK = _words("是真的吗 大家怎么看 有人知道原因吗 该怎么办 谁来说一说 明年还会这样吗")
_CARES = _words("也开始关心 开会讨论起 专门研究了 连夜打听 第一次谈到")
_HOBBY = _words("下班后迷上了 休假时惦记着 私下最爱聊 退出后改行做 不务正业盯着")


def write_sample(directory: str | os.PathLike[str], *, rows: int = 1000, seed: int = 20231) -> SamplePaths:
    """Write the sample's train, dev, test and labels files into `directory` (made if missing); give their paths.

    `rows` headlines in all, 60 % for training and 20 % each for dev and test; no text occurs twice. Each row has an
    int id, which bagualu classification needs. Raises InvalidArgument unless 60 <= rows <= 20000.
    """
    drawn = _draw(rows, seed, MIN_ROWS)
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    first, second = rows * 3 // 5, rows * 4 // 5
    paths = SamplePaths(*(folder / f"{name}.json" for name in SamplePaths._fields))
    for path, part in zip(paths, (drawn[:first], drawn[first:second], drawn[second:]), strict=False):
        _write(path, part)
    _write(paths.labels, [{"labels": list(LABELS)}])
    return paths


def sample_rows(rows: int = 1000, *, seed: int = 1) -> list[dict[str, str]]:
    """Give `rows` different headlines without labels, ready for ``predict``; few of them are in the data set.

    Raises InvalidArgument unless 1 <= rows <= 20000.
    """
    return [{"content": str(row["content"])} for row in _draw(rows, seed, 1)]


def _draw(rows: int, seed: int, least: int) -> list[dict[str, int | str]]:
    if not least <= rows <= MAX_ROWS:
        raise InvalidArgument("rows", f"{rows} is out of range", f"use {least} to {MAX_ROWS}")
    chance = random.Random(seed)  # noqa: S311 - phrases, not secrets
    headlines = dict(itertools.islice(_distinct(chance), rows))
    order = list(headlines.items())
    chance.shuffle(order)
    return [{"id": number, "content": text, "label": label} for number, (text, label) in enumerate(order)]


def _distinct(chance: random.Random) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for label in itertools.cycle(LABELS):
        text = _headline(label, chance)
        while text in seen:
            text = _headline(label, chance)
        seen.add(text)
        yield text, label


def _headline(label: str, chance: random.Random) -> str:
    pick = chance.choice
    topic = _TOPICS[label]
    if chance.random() < MIXED_SHARE:
        other = _TOPICS[pick([name for name in LABELS if name != label])]
        if chance.random() < 0.5:
            return f"{pick(other.who)}{pick(_CARES)}{pick(topic.thing)}，{pick(_TAIL)}"
        return f"{pick(topic.who)}{pick(_HOBBY)}{pick(other.thing)}，{pick(_TAIL)}"
    form = chance.randrange(4)
    if form == 0:
        return f"{pick(_WHEN)}，{pick(topic.who)}{pick(topic.does)}"
    if form == 1:
        return f"{pick(topic.who)}{pick(topic.does)}，{pick(_TAIL)}"
    if form == 2:
        return f"{pick(topic.thing)}{pick(topic.state)}，{pick(_TAIL)}"
    return f"{pick(topic.thing)}{pick(topic.state)}，{pick(_ASK)}？"


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(lines, encoding="utf-8", newline="\n")
