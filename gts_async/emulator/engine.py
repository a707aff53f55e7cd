"""The GTS Engine service as a pure function of requests and time: ``Engine(files, trainer).answer(request, now)``.

Here are its paths and handlers. Who keeps files and who trains is plugged in (`backends`); connections, and what
becomes of them after a 500, are the business of whoever serves it.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote, urlencode

from gts_async.emulator import engine_bodies as bodies
from gts_async.emulator.backends import Files, Trainer, TrainingOrder
from gts_async.emulator.engine_bodies import Crash, Rejected, result
from gts_async.emulator.engine_checks import check_file, check_rows, is_unlabeled_file
from gts_async.emulator.engine_data import DataFiles
from gts_async.emulator.engine_forms import read_upload
from gts_async.emulator.engine_quirks import EngineQuirks
from gts_async.emulator.engine_serving import Pipeline, Slot
from gts_async.emulator.engine_tasks import Info, TaskFolders
from gts_async.emulator.engine_training import INITIALIZED, MODES, SERVING, SUCCEEDED, Training, fate
from gts_async.wire import Answer, Request

Document = Mapping[str, object]
Handler = Callable[[Request, float], Document]

DEFAULT_HOST = "127.0.0.1:5201"
"""Where a redirect leads when the request has no Host header; the service listens on port 5201."""

SANE_REFUSAL = -104
"""The ret_code of refusals that the real service does not know; it is seen only with a quirk switched off."""

CHECKED = (
    ("train", "train_data", "训练"),
    ("dev", "val_data", "验证"),
    ("test", "test_data", "测试"),
    ("label", "label_data", "标签"),
)
"""The files that `train` checks, in order: kind of check, field that names the file, word in the message."""


class Engine:
    """A GTS Engine 0.1.4 without a network: the same answers byte for byte, quirks included, from time as it is told.

    `task_dir` is the folder that its messages show. Requests have to be given one at a time.
    """

    def __init__(
        self,
        files: Files,
        trainer: Trainer,
        *,
        quirks: EngineQuirks = EngineQuirks(),  # noqa: B008 frozen
        task_dir: str = "/srv/gts/tasks",
    ) -> None:
        self.quirks = quirks
        self._files = files
        self._folders = TaskFolders(task_dir)
        self._data = DataFiles(self._folders, files, quirks)
        self._training = Training(self._folders, trainer, quirks)
        self._slot = Slot(trainer, quirks)
        self._looks = 0
        self._handlers: dict[str, Handler] = {
            "/api/create_task/": self._create_task,
            "/api/list_task/": self._list_task,
            "/api/check_task_status": self._check_task_status,
            "/api/upfiles/": self._upfiles,
            "/api/delete_task/": self._delete_task,
            "/api/train": self._train,
            "/api/stop_train": self._stop_train,
            "/api/start_inference": self._start_inference,
            "/api/predict": self._predict,
            "/api/end_inference": self._end_inference,
        }

    def answer(self, request: Request, now: float) -> Answer:
        """Give the service's answer at `now` (Unix time in seconds, never less than before), without a date header.

        Raises TypeError for a body that is not bytes. After a 500 the real service closes the connection:
        see `EngineQuirks.closes_after_500`.
        """
        try:
            answer = self._route(request, now)
        except Rejected as rejected:
            answer = rejected.answer
        except Crash:
            answer = bodies.internal_error()
        return answer if request.method != "HEAD" else Answer(answer.status, answer.headers)

    def restart(self) -> None:
        """End the service's process and start it again: the model is forgotten; folders and trainings stay."""
        self._slot.forget()
        if not self.quirks.serving_survives_restart:
            for folder in self._folders.with_status(SERVING["status_code"]):
                self._folders.update_info(folder, **SUCCEEDED)

    def task_info(self, task_id: str) -> dict[str, Any] | None:
        """Give the task's task_info.json as a look at the server's disk shows it, None if there is none to be read."""
        try:
            return dict(self._folders.info(self._folders.path(task_id)))
        except Crash:
            return None

    def _route(self, request: Request, now: float) -> Answer:
        path = "/" + unquote(request.path).removeprefix("/")
        other = path.rstrip("/") if path.endswith("/") else path + "/"
        if path not in self._handlers and other in self._handlers:
            if self.quirks.redirects_slashes:
                return bodies.redirect(_location(request, other))
            path = other
        if path == "/":
            return bodies.home() if request.method == "GET" else bodies.wrong_method("GET")
        if path not in self._handlers:
            return bodies.not_found()
        if request.method != "POST":
            return bodies.wrong_method("POST")
        return bodies.as_json(self._handlers[path](request, now))

    def _create_task(self, request: Request, now: float) -> Document:
        asked = bodies.read_body(request, bodies.CREATE)
        engine_type, task_type = asked["engine_type"], asked["task_type"]
        task_id = asked["task_name"] or f"{task_type}_{datetime.fromtimestamp(now, UTC):%Y%m%d%H%M%S}"
        if not self.quirks.accepts_unsafe_names and not _is_safe(task_id):
            return result(SANE_REFUSAL, "unsafe task name", task_id=task_id)
        if not self.quirks.accepts_any_pipeline and (engine_type, task_type) not in MODES:
            return result(SANE_REFUSAL, "unknown pipeline", task_id=task_id)
        if self._folders.is_listed(task_id):
            return result(-100, "task已经存在", task_id=task_id)
        folder = self._folders.path(task_id)
        self._folders.make(folder)
        info = {"task_id": task_id, **INITIALIZED, "task_type": task_type, "task_name": task_id}
        self._folders.write_info(folder, {**info, "engine_type": engine_type})
        return result(200, "task成功创建", task_id=task_id)

    def _list_task(self, _request: Request, _now: float) -> Document:
        return result(200, "Success", tasks=self._folders.listed())

    def _check_task_status(self, request: Request, now: float) -> Document:
        task_id = bodies.read_body(request, bodies.ONLY_ID)["task_id"]
        if not self._folders.is_listed(task_id):
            return result(-100, "任务不存在")
        folder = self._folders.path(task_id)
        if not self._folders.has_info(folder):
            return result(-200, "任务信息文件不存在")
        self._training.settle(folder, now)
        self._meet_half_written()
        info = self._folders.info(folder)
        code, status = info["status_code"], info["status"]
        if code != SUCCEEDED["status_code"]:
            return result(code, status)
        accuracy = info["test_acc"] if self.quirks.bagualu_success_is_500 else info.get("test_acc")
        return result(code, status, test_acc=accuracy)

    def _meet_half_written(self) -> None:
        self._looks += 1
        every = self.quirks.half_written_every
        if every and self._looks % every == 0:
            raise Crash("task_info.json is being written")

    def _upfiles(self, request: Request, _now: float) -> Document:
        task_id, sent = read_upload(request)
        if not self._folders.is_listed(task_id):
            return result(-100, "task id不存在")
        names = [file.name for file in sent]
        if not self.quirks.accepts_unsafe_names and not all(map(_is_safe, names)):
            return result(SANE_REFUSAL, "unsafe file name")
        if not self.quirks.opens_folders and "" in names:
            return result(SANE_REFUSAL, "a file without a name")
        self._folders.make(self._folders.path(task_id, "data"))
        for file in sent:
            self._data.write(task_id, file.name, file.content)
        return result(200, "上传成功")

    def _delete_task(self, request: Request, _now: float) -> Document:
        task_id = bodies.read_body(request, bodies.ONLY_ID)["task_id"]
        if not self._folders.is_listed(task_id):
            return result(-100, "task id不存在")
        folder = self._folders.path(task_id)
        self._folders.remove(folder)
        self._files.remove(task_id)
        self._training.forget(folder, task_id)
        return result(200, "Success")

    def _train(self, request: Request, now: float) -> Document:
        asked = bodies.read_body(request, bodies.TRAIN)
        task_id = asked["task_id"]
        if not self._folders.is_listed(task_id):
            return result(-100, "任务id不存在")
        if asked["train_mode"] == "advanced" and (lack := self._lack_of_unlabeled(task_id, asked["unlabeled_data"])):
            return result(-101, lack)
        folder = self._folders.path(task_id)
        if not self._folders.has_info(folder):
            return result(-102, "任务信息文件不存在")
        self._training.settle(folder, now)
        info = self._folders.info(folder)
        faulty = self._faulty_file(info["task_type"], task_id, asked)
        if faulty is not None:
            return result(-101, faulty)
        order = TrainingOrder(**asked, engine_type=info["engine_type"], task_type=info["task_type"])
        if not self.quirks.starts_bad_orders and fate(order) is not None:
            return result(SANE_REFUSAL, "this cannot be trained")
        if not self.quirks.trains_twice and self._training.is_running(folder):
            return result(SANE_REFUSAL, "the task is in training")
        self._training.start(folder, order, now)
        return result(200, "训练调度成功")

    def _lack_of_unlabeled(self, task_id: str, name: str) -> str | None:
        if name == "":
            return "高级模式需提供无标签数据"
        content = self._data.read(task_id, name)
        return None if content is not None and is_unlabeled_file(content) else "无标签数据不存在或者数据格式不合法"

    def _faulty_file(self, task_type: str, task_id: str, asked: Mapping[str, Any]) -> str | None:
        for kind, field, word in CHECKED:
            content = self._data.read(task_id, asked[field])
            if content is None:
                faulty: str | None = f"{self._data.shown(task_id, asked[field])}路径不存在"
            else:
                faulty = check_file(task_type, kind, content)
            if faulty is not None:
                return f"{word}数据不存在或者数据格式不合法: \n{faulty}"
        return None

    def _stop_train(self, request: Request, now: float) -> Document:
        task_id = bodies.read_body(request, bodies.ONLY_ID)["task_id"]
        if not self._folders.is_listed(task_id):
            return result(-100, "任务id不存在")
        folder = self._folders.path(task_id)
        if not self._folders.has_info(folder):
            return result(-102, "任务信息文件不存在")
        self._training.settle(folder, now)
        if not self._training.stop(folder, now):
            return result(-103, "任务不在训练中")
        return result(200, "终止训练成功")

    def _start_inference(self, request: Request, now: float) -> Document:
        folder = self._folders.path(bodies.read_body(request, bodies.ONLY_ID)["task_id"])
        if not self._folders.has_info(folder):
            return result(-100, "task_id not exits")
        self._training.settle(folder, now)
        info = self._folders.info(folder)
        try:
            self._slot.load(folder, _pipeline(info), self._training.output_of(folder))
        except Crash:
            if self.quirks.fails_to_load_nothing:
                raise
            return result(SANE_REFUSAL, "the task has no model")
        self._folders.write_info(folder, info | SERVING)
        return result(200, "加载预测模型")

    def _predict(self, request: Request, _now: float) -> Document:
        asked = bodies.read_body(request, bodies.PREDICT)
        folder, rows = self._folders.path(asked["task_id"]), asked["sentences"]
        if not self._folders.has_info(folder):
            return result(-100, "task_id not exits")
        info = self._folders.info(folder)
        faulty = check_rows(info["task_type"], "unlabeled", rows)
        if faulty is not None:
            return result(-101, faulty)
        if not self.quirks.serves_any_id and not self._slot.holds(folder):
            return result(SANE_REFUSAL, "the model of this task is not loaded")
        return {"ret_code": 200, "result": self._slot.predict(_pipeline(info), rows), "message": "预测成功"}

    def _end_inference(self, request: Request, now: float) -> Document:
        folder = self._folders.path(bodies.read_body(request, bodies.ONLY_ID)["task_id"])
        if not self.quirks.blind_end and not self._slot.holds(folder):
            return result(SANE_REFUSAL, "the model of this task is not loaded")
        self._slot.free()
        self._training.settle(folder, now)
        if self.quirks.blind_end or self._folders.info(folder)["status_code"] == SERVING["status_code"]:
            self._folders.update_info(folder, **SUCCEEDED)
        return result(200, "释放预测模型")


def _pipeline(info: Info) -> Pipeline:
    return info["engine_type"], info["task_type"]


def _is_safe(name: str) -> bool:
    plain = name.isascii() and name.replace("_", "").replace("-", "").replace(".", "").isalnum()
    return plain and not name.startswith("-") and len(name) <= 200


def _location(request: Request, path: str) -> str:
    """Give the absolute URL that starlette redirects to; the scheme is what a proxy on the same host says."""
    scheme = request.header("x-forwarded-proto") or "http"
    query = f"?{urlencode(request.query, quote_via=quote)}" if request.query else ""
    host = request.header("host") or DEFAULT_HOST
    return quote(f"{scheme}://{host}{path}{query}", safe=":/%#?=@[]!$&'()*+,;")
