"""Progress, told and shown: ``with RichProgress() as progress: await task.upload("a.json", progress=progress)``.

Whatever takes ``progress=`` calls it with a `Progress`. Nothing here is imported before it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gts_async._progress import OnProgress as OnProgress, Progress as Progress, Unit as Unit
    from gts_async.progress.notebook import NotebookProgress as NotebookProgress
    from gts_async.progress.terminal import RichProgress as RichProgress

_HOME = {
    "NotebookProgress": "progress.notebook",
    "OnProgress": "_progress",
    "Progress": "_progress",
    "RichProgress": "progress.terminal",
    "Unit": "_progress",
}

__all__ = ["NotebookProgress", "OnProgress", "Progress", "RichProgress", "Unit"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gts_async.progress' has no attribute {name!r}")
    return getattr(import_module(f"gts_async.{_HOME[name]}"), name)
