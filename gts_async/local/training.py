"""The training process: ``python -m gts_async.local.training <order.json>`` trains one order and says how it went.

It leaves its marks in `state.json` beside the order: nothing while it imports, "training", then "succeeded" or
"failed". An order that the engine's command line would refuse gets no mark at all. `trainer` starts it and reads them.
Of an order's numbers only `gpuid` means nothing here: linear models are trained on the processor.
"""

import importlib
import io
import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gts_async.emulator.backends import Stage, TrainingOrder
from gts_async.emulator.engine_training import fate
from gts_async.local.files import FolderFiles, write_whole
from gts_async.local.trainer import MARK_FILE, MODEL_FILE

if TYPE_CHECKING:
    from types import ModuleType

    from gts_async.local.models.rows import Trained

LOG = logging.getLogger(__name__)

_MODELS = "gts_async.local.models"

PIPELINES: Mapping[tuple[str, str], str] = {
    ("qiankunding", "classification"): f"{_MODELS}.classification",
    ("qiankunding", "similarity"): f"{_MODELS}.pairs",
    ("qiankunding", "nli"): f"{_MODELS}.pairs",
    ("bagualu", "classification"): f"{_MODELS}.classification",
    ("bagualu", "ie"): f"{_MODELS}.extraction",
    ("bagualu", "summary"): f"{_MODELS}.summary",
}
"""Which module trains which of the engine's six pipelines, with its function ``train(order, files) → Trained``."""


MIN_STAGE = 0.6
"""Seconds that "training" shows at least. The engine's shortest takes 0.8 s, and only by seeing it can a client tell a
run from the one before: our models are trained sooner than anybody looks."""


def main(arguments: list[str]) -> int:
    """Train the order in the file named by the only argument; give the exit code: 0 trained, 1 failed, 2 refused."""
    path = Path(arguments[0])
    note = json.loads(path.read_bytes())
    order = TrainingOrder(**note["order"])
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    if fate(order) is Stage.DIED:
        LOG.error("the engine's command line would not take %r", order)
        return 2
    pipeline = _pipeline(order)
    mark(path, Stage.TRAINING)
    return _train(path, pipeline, order, FolderFiles(note["root"]))


def _pipeline(order: TrainingOrder) -> "ModuleType | None":
    if fate(order) is Stage.FAILED:
        return None
    return importlib.import_module(PIPELINES[order.engine_type, order.task_type])


def _train(path: Path, pipeline: "ModuleType | None", order: TrainingOrder, files: FolderFiles) -> int:
    began = time.monotonic()
    try:
        if pipeline is None:
            what = f"{order.task_type} in mode {order.train_mode}"
            raise ValueError(f"{order.engine_type} does not train {what}")
        trained: Trained = pipeline.train(order, files)
        _keep(trained.model, files.task_folder(order.task_id) / MODEL_FILE)
    except (Exception, KeyboardInterrupt):
        # The engine, too, calls an interrupted training a failed one.
        LOG.exception("the training failed")
        _show_stage(began)
        mark(path, Stage.FAILED)
        return 1
    LOG.info("trained in %.2f s", time.monotonic() - began)
    _show_stage(began)
    mark(path, Stage.SUCCEEDED, trained.test_acc)
    return 0


def _show_stage(began: float) -> None:
    time.sleep(max(0.0, began + MIN_STAGE - time.monotonic()))


def mark(order_path: Path, stage: Stage, test_acc: float | None = None) -> None:
    """Leave a mark beside the order; a reader sees the mark before or this one, never a part."""
    write_whole(order_path.with_name(MARK_FILE), json.dumps({"stage": stage.value, "test_acc": test_acc}).encode())


def _keep(model: object, path: Path) -> None:
    import joblib

    content = io.BytesIO()
    joblib.dump(model, content)
    write_whole(path, content.getvalue())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
