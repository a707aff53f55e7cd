"""What a stranger meets first: the root's names, its map, the error tree, and how little an import costs."""

import ast
import importlib
import inspect
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import attrs
import pytest

import gts_async
from gts_async import Attempt, GtsAsyncError, Problem, TaskInfo, TaskStatus, Transition, _errors
from gts_async.testing import FakeClock

PACKAGE = Path(gts_async.__file__).parent
EXTRAS = (
    "cyclopts",
    "rich",
    "starlette",
    "uvicorn",
    "sklearn",
    "python_multipart",
    "multipart",
    "opentelemetry",
    "trustme",
)
DEPENDENCIES = {"httpx", "httpcore", "anyio", "attr", "attrs", "msgspec", "sniffio", "platformdirs", "h11", "certifi"}

# The names at the root


def imported_for_type_checkers() -> dict[str, str]:
    """Give each name that ``if TYPE_CHECKING`` imports, with its module."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    guarded = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {
        alias.asname or alias.name: node.module or ""
        for block in guarded
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_all_is_what_type_checkers_see() -> None:
    assert sorted(imported_for_type_checkers()) == gts_async.__all__


@pytest.mark.parametrize(("name", "module"), imported_for_type_checkers().items())
def test_a_public_name_is_the_one_that_type_checkers_see(name: str, module: str) -> None:
    if module == "gts_async":
        assert getattr(gts_async, name) is importlib.import_module(f"gts_async.{name}")
    else:
        assert getattr(gts_async, name) is getattr(importlib.import_module(module), name)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'gts_async' has no attribute 'Session'"):
        gts_async.Session  # noqa: B018 - looking it up is the test


def test_dir_tells_all_public_names() -> None:
    assert {*gts_async.__all__, "__version__"} <= set(dir(gts_async))


def test_version_is_the_one_of_the_distribution() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", gts_async.__version__)


# The map in the root's docstring


def map_rows() -> dict[str, list[str]]:
    """Give the map: what one wants to see, and the files or folders to open."""
    rows: dict[str, list[str]] = {}
    lines = (gts_async.__doc__ or "").splitlines()
    ruler = next(line for line in lines if re.fullmatch(r"=+ +=+", line))
    start = ruler.index(" =") + 1
    first, _, last = (number for number, line in enumerate(lines) if line == ruler)
    what = ""
    for line in lines[first + 3 : last]:
        left, right = line[:start].strip(), line[start:]
        places = re.findall(r"``([^`]+)``", right)
        if left and places:
            what = left
        rows.setdefault(what, []).extend(places)
    return rows


MAPPED = [place for places in map_rows().values() for place in places]


def test_the_map_has_rows() -> None:
    assert len(map_rows()) > 10
    assert all(map_rows().values())


@pytest.mark.parametrize("place", MAPPED)
def test_the_map_names_only_what_is_there(place: str) -> None:
    assert (PACKAGE / place).is_dir() if place.endswith("/") else (PACKAGE / place).is_file()


def test_every_module_is_on_the_map_or_beside_one_that_is() -> None:
    folders = {PACKAGE / place if place.endswith("/") else (PACKAGE / place).parent for place in MAPPED} - {PACKAGE}
    files = {PACKAGE / place for place in MAPPED}
    modules = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    assert modules
    assert [str(path) for path in modules if path not in files and not folders & set(path.parents)] == []


QUESTIONS = {
    "What does deleting a task POST to?": ("what bytes a call sends", '"/api/delete_task/"'),
    "What is status 4?": ("what a code or status means", "STOPPED = 4"),
    "How long is the third retry's wait?": ("what is tried again", "min(maximum, initial · 2ⁿ⁻¹)"),
    "Is a lost answer to create tried again?": ("what is tried again", "any other (create, train)   again"),
    "What happens to a running watch when I drop it?": ("what looks become", "dropping it leaves nothing"),
    "Where is the token put?": ("timeouts, URLs, settings, tokens", "``Authorization``"),
    "Why did the wait not end at the first success?": ("when work counts as finished", "is believed until the run"),
    "Which error is a wrong argument?": ("an error and when it is raised", "InvalidArgument           also ValueError"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_map_leads_to_the_answer(question: str) -> None:
    row, answer = QUESTIONS[question]
    [places] = [places for what, places in map_rows().items() if what.startswith(row)]
    texts = [(PACKAGE / place).read_text("utf-8") for place in places]
    assert any(answer in text for text in texts)


# The error tree in the docstring of _errors.py


@attrs.frozen
class Drawn:
    """An error as the tree draws it: whose kind it is, what else it is, and which attributes it has."""

    parent: str | None
    also: str | None = None
    attributes: tuple[str, ...] = ()


def drawn_tree() -> dict[str, Drawn]:
    tree: dict[str, Drawn] = {}
    path: list[str] = []
    for line in (_errors.__doc__ or "").splitlines():
        if found := re.fullmatch(r"    ((?:│   |    )*)(?:[├└]── )?([A-Z]\w+)(?:\s+(.*))?", line):
            depth = line.index(found[2]) // 4 - 1
            del path[depth:]
            also = re.search(r"also (\w+)", found[3] or "")
            attributes = re.findall(r"(?<!\S)\.(\w+)", found[3] or "")
            tree[found[2]] = Drawn(path[-1] if path else None, also[1] if also else None, tuple(attributes))
            path.append(found[2])
    return tree


def error_classes() -> dict[str, type[GtsAsyncError]]:
    return {
        name: kind for name, kind in vars(_errors).items() if isinstance(kind, type) and issubclass(kind, GtsAsyncError)
    }


def test_the_drawn_tree_is_the_real_one() -> None:
    def drawn(kind: type[GtsAsyncError]) -> tuple[str | None, str | None]:
        ours = [base.__name__ for base in kind.__bases__ if issubclass(base, GtsAsyncError)]
        others = [base.__name__ for base in kind.__bases__ if base.__name__ not in ours and base is not Exception]
        return (ours[0] if ours else None), (others[0] if others else None)

    real = {name: drawn(kind) for name, kind in error_classes().items()}
    # Being an ImportError is of use to importers only, and the tree has no room for it.
    real["MissingExtra"] = (real["MissingExtra"][0], None)
    assert {name: (error.parent, error.also) for name, error in drawn_tree().items()} == real


def test_every_error_is_public() -> None:
    assert set(error_classes()) <= set(gts_async.__all__)


@pytest.mark.parametrize("name", error_classes())
def test_an_error_has_the_attributes_that_the_tree_draws(name: str) -> None:
    error = error_classes()[name]()
    assert [a for a in drawn_tree()[name].attributes if not hasattr(error, a)] == []


LOOK = TaskInfo(TaskStatus.FAILED, "Train Failed", observed_at=FakeClock().wall())
VALUES = {
    "text": "what happened",
    "call": "task_status",
    "url": "http://engine.test/api/check_task_status",
    "attempts": (Attempt(0.0, "cut", 502, 0.25), Attempt(0.3, "silent")),
    "request_id": "r-1",
    "status": 502,
    "body": "Bad Gateway",
    "problem": "$.tasks[2] is a number",
    "code": -101,
    "message": "the server's own words",
    "handle": None,
    "last_look": LOOK,
    "history": (Transition(None, LOOK.status, LOOK, FakeClock().wall(), 1.5, is_final=True),),
    "path": "train.json",
    "argument": "seed",
    "fix": "use 0 to 9",
    "extra": "local",
    "what": "the embedded engine",
}
SET_LATER = {"intent": "token", "problems": (Problem("train.json", 3, "label", "is a number"),), "retry_after": 7.5}


def filled(kind: type[GtsAsyncError]) -> GtsAsyncError:
    """Give an error of that kind in which every attribute holds something."""
    takes = {
        name
        for base in kind.__mro__
        if issubclass(base, GtsAsyncError) and "__init__" in vars(base)
        for name, parameter in inspect.signature(base).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD and name in VALUES
    }
    error = kind(**{name: VALUES[name] for name in takes}) if takes else kind("what happened")
    for name, value in SET_LATER.items():
        if hasattr(kind, name):
            setattr(error, name, value)
    return error


@pytest.mark.parametrize("name", error_classes())
def test_an_error_survives_a_pickle(name: str) -> None:
    error = filled(error_classes()[name])
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
    assert [a for a in drawn_tree()[name].attributes if getattr(again, a) != getattr(error, a)] == []


def test_a_pickled_work_error_leaves_its_handle_behind_because_that_belongs_to_a_session() -> None:
    error = filled(error_classes()["DeadlineExceeded"])
    error.handle = threading.Lock()  # like a session, it cannot be pickled
    assert pickle.loads(pickle.dumps(error)).handle is None


# What importing costs, and what is missing without the extras


def python(code: str, *, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own in which the modules of `without` cannot be imported."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({without!r}))\n"
    return subprocess.run([sys.executable, "-c", blocked + code], capture_output=True, text=True, timeout=60)


def test_importing_imports_no_dependency() -> None:
    ran = python("before = set(sys.modules)\nimport gts_async\nprint(*set(sys.modules) - before)")
    assert ran.stderr == ""
    imported = {name.partition(".")[0] for name in ran.stdout.split()}
    assert "gts_async" in imported
    assert imported & {*DEPENDENCIES, *EXTRAS, "asyncio", "ssl"} == set()


def test_every_name_is_there_without_any_extra() -> None:
    code = """
import gts_async
for name in gts_async.__all__:
    getattr(gts_async, name)
print(gts_async.AsyncSession(engine="http://127.0.0.1:5201"))
"""
    ran = python(code, without=EXTRAS)
    assert (ran.stdout, ran.stderr) == ("<AsyncSession engine=http://127.0.0.1:5201 not opened>\n", "")


def test_the_command_without_its_extra_says_in_one_line_what_installs_it() -> None:
    ran = python("from gts_async.__main__ import main; sys.exit(main(['demo']))", without=EXTRAS)
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr == 'the gts-async command needs an extra: python -m pip install "gts-async[cli]"\n'


@pytest.mark.parametrize("missing", ["sklearn", "uvicorn"])
def test_an_embedded_engine_without_its_extra_says_in_one_line_what_installs_it(missing: str, tmp_path: Path) -> None:
    code = f"""
import asyncio
from gts_async import MissingExtra
from gts_async.local.stack import EmbeddedEngine

async def main():
    try:
        async with EmbeddedEngine({str(tmp_path)!r}):
            print("it runs")
    except MissingExtra as error:
        print(error.extra, error)

asyncio.run(main())
"""
    ran = python(code, without=(missing,))
    assert ran.stderr == ""
    assert re.fullmatch(r'local .* needs an extra: python -m pip install "gts-async\[local\]"\n', ran.stdout)
