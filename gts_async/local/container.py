"""What stands in for a job's container: its folders, its arguments and its environment.

The process itself is in `processes`; when a job runs, and what becomes of it, in `jobs`.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs

from gts_async._errors import UnsafePath
from gts_async.emulator.backends import JobOrder

BUILT_IN_JOB = (sys.executable, "-I", str(Path(__file__).with_name("job.py")))
"""What runs when the order has no command, where a container would run its image's own one."""

_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_CONTAINER_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@attrs.frozen
class Folders:
    """Where one job lives: `home` is its working directory, `ckpt` and `model` are its two volumes."""

    home: Path
    ckpt: Path
    model: Path

    @classmethod
    def of(cls, root: Path, job_id: str) -> "Folders":
        """Give the folders of a job under `root`, without making them. Raises UnsafePath for an id that is no name."""
        if not _SAFE_ID.fullmatch(job_id):
            raise UnsafePath(f"job id {job_id!r} cannot name a folder", path=job_id)
        home = root / job_id
        return cls(home, home / "ckpt", home / "model")

    def make(self) -> None:
        """Make all three."""
        self.ckpt.mkdir(parents=True, exist_ok=True)
        self.model.mkdir(exist_ok=True)


def is_general(order: JobOrder) -> bool:
    """Whether the order is for a GeneralJob, in either dialect's spelling."""
    return order.job_type.lower() in {"generaljob", "general"}


def arguments(order: JobOrder, folders: Folders) -> tuple[str, ...]:
    """Give what is executed: the command split at single spaces, no shell, so two spaces make an empty argument.

    Two things differ from a container. A first word ``python`` is the interpreter that runs this library. And an
    argument, or what follows its first ``=``, that is or lies under the order's `model_path` or `ckpt_path` is
    changed to the job's own folder, because the host has no such absolute paths. Server fact: `strings.Split(cmd, " ")`
    in `marketmanager.go`.
    """
    if not order.run_command:
        return BUILT_IN_JOB
    first, *rest = (_moved(argument, order, folders) for argument in order.run_command.split(" "))
    return (sys.executable if first == "python" else first, *rest)


def environment(order: JobOrder, folders: Folders, host: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Give the whole environment: of the host only ``PATH`` and ``LANG``, so no token of ours ever leaks into a job.

    ``JOB_ID``, ``SXWL_CKPT_PATH`` and ``SXWL_MODEL_PATH`` are added; `env` reaches only a GeneralJob, as in the cloud
    (`pytorchjob.go`, `mpijob.go` pass nil), its values changed like arguments.
    """
    given = {key: _moved(value, order, folders) for key, value in order.env.items()} if is_general(order) else {}
    return {
        "PATH": host.get("PATH", _CONTAINER_PATH),
        "LANG": host.get("LANG", "C.UTF-8"),
        "HOME": str(folders.home),
        **given,
        "JOB_ID": order.job_id,
        "SXWL_CKPT_PATH": str(folders.ckpt),
        "SXWL_MODEL_PATH": str(folders.model),
    }


def _moved(text: str, order: JobOrder, folders: Folders) -> str:
    option, equals, value = text.partition("=")
    if text.startswith("/") or not equals:
        option, equals, value = "", "", text
    # The longer path first: one volume may be mounted inside the other.
    volumes = sorted(((order.model_path, folders.model), (order.ckpt_path, folders.ckpt)), key=_length, reverse=True)
    for path, folder in volumes:
        base = path.rstrip("/")
        if base and (value == base or value.startswith(f"{base}/")):
            return f"{option}{equals}{folder}{value.removeprefix(base)}"
    return text


def _length(volume: tuple[str, Path]) -> int:
    return len(volume[0])
