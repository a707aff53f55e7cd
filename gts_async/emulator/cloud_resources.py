"""The models, data sets and adapters that HEAD knows of, and the calls that look them up.

They live in the object store of the cloud; nothing here can be fetched or sent there.
"""

import json
from collections.abc import Callable, Iterable

import attrs

from gts_async.emulator.cloud_answers import Refusal, go_answer
from gts_async.emulator.cloud_front import Asked, Methods
from gts_async.emulator.cloud_gozero import Kind, fields, read_form
from gts_async.emulator.cloud_jobs import User
from gts_async.wire import Answer


@attrs.frozen(kw_only=True)
class Resource:
    """One row of `sys_oss_resource`: `kind` is "model", "dataset" or "adapter", `size` in bytes, `meta` JSON.

    `owner` is the name of a user, or "public".
    """

    id: str
    name: str
    kind: str
    size: int
    owner: str = "public"
    meta: str = "{}"

    @property
    def is_public(self) -> bool:
        """Whether everybody sees it."""
        return self.owner == "public"

    def told(self, key: str, default: object) -> object:
        """Give what the meta document has under `key`."""
        return json.loads(self.meta).get(key, default)


_CHAT = '{"template":"chatglm3","category":"chat","can_finetune":true,"can_inference":true,"finetune_gpu_count":1}'
_EMBEDDING = '{"category":"embedding"}'

DEFAULT_RESOURCES = (
    Resource(id="model-1", name="ZhipuAI/chatglm3-6b", kind="model", size=12_487_168_064, meta=_CHAT),
    Resource(id="model-2", name="BAAI/bge-large-zh-v1.5", kind="model", size=1_302_151_936, meta=_EMBEDDING),
    Resource(id="dataset-1", name="llamafactory/alpaca_data_zh_short", kind="dataset", size=614_400),
)


class ResourceCalls:
    """The look-ups; `adapters` gives those that finetunes have made, as of a moment."""

    def __init__(self, resources: Iterable[Resource], adapters: Callable[[float], list[Resource]]) -> None:
        self._resources = tuple(resources)
        self._adapters = adapters
        self.routes: dict[str, Methods] = {
            "/api/resource/model/name": {"GET": self.model},
            "/api/resource/dataset/name": {"GET": self.dataset},
            "/api/resource/adapter/name": {"GET": self.adapter},
            "/api/resource/models": {"GET": self._lister("model")},
            "/api/resource/datasets": {"GET": self._lister("dataset")},
            "/api/resource/adapters": {"GET": self._lister("adapter")},
        }

    def model(self, asked: Asked) -> Answer:
        """GET /api/resource/model/name: whether it is public is never filled in (`model_by_name_logic.go`)."""
        found = self._named(asked, "model", "模型不存在")
        return go_answer(
            {
                "model_id": found.id,
                "model_name": found.name,
                "model_path": "",
                "model_size": found.size,
                "model_is_public": False,
                "model_template": found.told("template", ""),
                "model_meta": found.meta,
                "model_category": found.told("category", ""),
            }
        )

    def dataset(self, asked: Asked) -> Answer:
        """GET /api/resource/dataset/name."""
        found = self._named(asked, "dataset", "数据集不存在")
        return go_answer(
            {
                "dataset_id": found.id,
                "dataset_name": found.name,
                "dataset_path": "",
                "dataset_size": found.size,
                "dataset_is_public": found.is_public,
            }
        )

    def adapter(self, asked: Asked) -> Answer:
        """GET /api/resource/adapter/name: was never written, and answers null (`adapter_by_name_logic.go`)."""
        read_form(asked.request, fields(Kind.TEXT, "adapter_name"))
        return go_answer(None)

    def _named(self, asked: Asked, kind: str, missing: str) -> Resource:
        name = read_form(asked.request, fields(Kind.TEXT, f"{kind}_name"))[f"{kind}_name"]
        found = next((one for one in self._resources if one.kind == kind and one.name == name), None)
        if found is None:
            raise Refusal(missing)
        return found

    def _lister(self, kind: str) -> Callable[[Asked], Answer]:
        def list_all(asked: Asked) -> Answer:
            every = (one for one in (*self._resources, *self._adapters(asked.now)) if one.kind == kind)
            seen = [one for one in every if one.is_public or one.owner == asked.user.name]
            return go_answer(
                {
                    "public_list": [_listed(one) for one in seen if one.is_public],
                    "user_list": [_listed(one) for one in seen if not one.is_public],
                }
            )

        return list_all


def _listed(one: Resource) -> dict[str, object]:
    uses = [use for use in ("finetune", "inference") if one.told(f"can_{use}", False)]
    is_model, is_dataset = one.kind == "model", one.kind == "dataset"
    return {
        "id": one.id,
        "name": one.name,
        "object": one.kind,
        "owner": one.owner,
        "size": one.size,
        "is_public": one.is_public,
        "user_id": one.owner if is_model else "",
        "tag": uses or None,
        "template": one.told("template", "") if is_model else "",
        "meta": one.meta,
        "category": one.told("category", "") if is_model else "",
        "base_model": one.told("base_model", ""),
        "finetune_gpu_count": 0 if is_dataset else one.told("finetune_gpu_count", 1),
        "inference_gpu_count": 0 if is_dataset else one.told("inference_gpu_count", 1),
    }


def owned_adapter(job_id: str, name: str, base_model: str, user: User) -> Resource:
    """Give the adapter that a finetune leaves with its user; its size is made up."""
    meta = json.dumps({"base_model": base_model, "finetune_id": job_id})
    identity = f"adapter-{job_id.removeprefix('finetune-')}"
    return Resource(
        id=identity, name=f"{user.name}/{name}", kind="adapter", size=15_728_640, owner=user.name, meta=meta
    )
