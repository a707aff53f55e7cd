"""The engine's one model slot: what is loaded, for which pipeline, and what it still answers."""

from collections.abc import Sequence
from typing import Any

import attrs

from gts_async.emulator.backends import Model, Trainer
from gts_async.emulator.engine_bodies import Crash
from gts_async.emulator.engine_quirks import EngineQuirks
from gts_async.emulator.engine_training import MODES

_FAILURES = (LookupError, NameError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, OSError)
"""What a backend's model may stumble over; the service knows no error but 500."""

Pipeline = tuple[str, str]
"""Engine type and task type."""


@attrs.define
class _Loaded:
    model: Model
    folder: str
    pipeline: Pipeline
    is_spent: bool = False


class Slot:
    """The service's single global `inference_suite`; loading replaces whatever is there."""

    def __init__(self, trainer: Trainer, quirks: EngineQuirks) -> None:
        self._trainer = trainer
        self._quirks = quirks
        self._loaded: _Loaded | None = None

    def load(self, folder: str, pipeline: Pipeline, output: str) -> None:
        """Load the trainer's `output`; raises Crash, and keeps what was loaded, if that fails."""
        if pipeline not in MODES:
            raise Crash(f"no pipeline {pipeline}")
        try:
            model = self._trainer.load(output)
        except _FAILURES as error:
            raise Crash(f"loading failed: {error!r}") from error
        self._loaded = _Loaded(model, folder, pipeline)

    def predict(self, pipeline: Pipeline, rows: Sequence[Any]) -> Any:
        """Give the loaded model's ``result``; raises Crash if there is none, or if it is another pipeline's."""
        loaded = self._loaded
        if loaded is None:
            raise Crash("NameError: inference_suite")
        if loaded.pipeline != pipeline:
            raise Crash(f"{loaded.pipeline} is loaded, not {pipeline}")
        try:
            result = loaded.model.predict(rows)
        except _FAILURES as error:
            raise Crash(f"the model fails: {error!r}") from error
        if loaded.is_spent:
            raise Crash("its temporary folder is gone")
        loaded.is_spent = self._quirks.one_predict_per_load and pipeline == ("bagualu", "classification")
        return result

    def holds(self, folder: str) -> bool:
        """Tell whether it is this task's model that is loaded."""
        return self._loaded is not None and self._loaded.folder == folder

    def free(self) -> None:
        """Forget the model; raises Crash if none is loaded."""
        if self._loaded is None:
            raise Crash("NameError: inference_suite")
        self._loaded = None

    def forget(self) -> None:
        """Forget the model if there is one, as the end of the service's process does."""
        self._loaded = None
