"""The documentation is true: its programs run, its commands exist, its tables name what there is.

A block of Python runs in one of three ways: one that calls ``asyncio.run`` as a program of its own, one that defines
tests under pytest, any other in this process, with ``await`` at the top. HTML comments right above a block say what it
needs:

- ``<!-- runs with: session task -->``: values by name, made by `Scene` or by a fixture; ``embedded_engine`` and
  ``embedded_cloud`` are put into the environment too.
- ``<!-- not run: why -->``: it cannot be run. `NOT_RUN` counts these.

A block of ``text`` that comes next is what it prints; with ``<!-- figures vary -->`` figures may differ, and whether a
stage was seen. The Chinese twin has the same blocks as the README, comments aside, so running the README's runs both.
"""

import ast
import io
import os
import re
import shlex
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest
from anyio.from_thread import start_blocking_portal
from cyclopts import CycloptsError

import gts_async
from gts_async import AsyncSession, JobSpec, Task, TrainingRun, _errors
from gts_async._net.settings import ENVIRONMENT, from_files
from gts_async.cli.app import app
from gts_async.cli.exits import Exit
from gts_async.emulator.engine import Engine
from gts_async.emulator.scripted import MemoryFiles, Script, ScriptedTrainer
from gts_async.local.sample import sample_rows, write_sample
from gts_async.local.stack import EmbeddedCloud, EmbeddedEngine
from gts_async.testing import EmulatorTransport, faults, plugin

ROOT = Path(__file__).parent.parent
TWINS = ("README.md", "README.zh.md")
PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
NOT_RUN = 0
"""Blocks of Python that are marked as not to be run."""

LANGUAGES = {"python", "sh", "text", "toml"}
OTHER_COMMANDS = {"python", "export", "bash", "ruff", "mypy", "pyright", "lint-imports"}
"""First words in shell blocks besides our own command; each is a tool that the page tells how to get."""


@attrs.frozen(kw_only=True)
class Block:
    """A fenced block of a page, and the comments above it."""

    page: str
    line: int
    language: str
    code: str
    markers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def kind(self) -> str:
        if any(marker.startswith("not run: ") for marker in self.markers):
            return "not run"
        if "asyncio.run(" in self.code:
            return "program"
        return "tests" if re.search(r"^(async )?def test_", self.code, re.MULTILINE) else "fragment"

    @property
    def runs_with(self) -> list[str]:
        prefix = "runs with: "
        return [name for marker in self.markers if marker.startswith(prefix) for name in marker[len(prefix) :].split()]

    @property
    def located(self) -> str:
        """The code, pushed down so that a traceback shows the page's own lines."""
        return "\n" * self.line + self.code


def blocks_of(page: str) -> list[Block]:
    blocks: list[Block] = []
    markers: list[str] = []
    lines = iter(enumerate((ROOT / page).read_text("utf-8").splitlines(), 1))
    for number, line in lines:
        if found := re.fullmatch(r"<!-- (.*) -->", line):
            markers.append(found[1])
        elif line.startswith("```"):
            code = ""
            for _, inner in lines:
                if inner == "```":
                    break
                code += f"{inner}\n"
            blocks.append(Block(page=page, line=number, language=line[3:], code=code, markers=tuple(markers)))
            markers = []
        elif line:
            markers = []
    return blocks


BLOCKS = {page: blocks_of(page) for page in (*PAGES, "README.zh.md")}
RUN = [block for page in PAGES for block in BLOCKS[page]]
PYTHON = [block for block in RUN if block.language == "python"]


def of_kind(kind: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for block in PYTHON if block.kind == kind]


def in_language(language: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for block in RUN if block.language == language]


# The blocks of Python


@attrs.define
class Scene:
    """Makes what fragments use, on the emulated services; whatever it has no method for is a fixture."""

    request: pytest.FixtureRequest
    stack: AsyncExitStack

    async def give(self, name: str) -> Any:
        make = getattr(self, f"make_{name}", None)
        return self.request.getfixturevalue(name) if make is None else await make()

    async def make_session(self) -> AsyncSession:
        session: AsyncSession = self.request.getfixturevalue("gts_session")
        return await self.stack.enter_async_context(session)

    async def make_data_files(self) -> None:
        write_sample(Path.cwd(), rows=100)

    async def make_task(self) -> Task:
        """Give a task that has been trained."""
        await self.make_data_files()
        return await self._task_of(await self.make_session())

    async def _task_of(self, session: AsyncSession) -> Task:
        task = await session.create_task("news", task_type="classification", engine_type="qiankunding")
        await task.upload("train.json", "dev.json", "test.json", "labels.json")
        await (await self._train(task))
        return task

    async def make_run(self) -> TrainingRun:
        return await self._train((await self.make_session()).task("news"))

    async def make_long_run(self) -> TrainingRun:
        await self.make_task()
        self.request.getfixturevalue("gts_trainer").plan(Script(training=7200.0))
        return await self.make_run()

    async def _train(self, task: Task) -> TrainingRun:
        return await task.train(
            train_data="train.json", val_data="dev.json", test_data="test.json", label_data="labels.json"
        )

    async def make_tasks(self) -> list[Task]:
        """Give two tasks that have learned the same, on two engines."""
        return [await self.make_task(), await self._task_of(self._second_session())]

    def _second_session(self) -> AsyncSession:
        clock = self.request.getfixturevalue("gts_clock")
        servers = {"http://other.test": Engine(MemoryFiles(), ScriptedTrainer())}
        transport = EmulatorTransport(servers, lambda: clock.wall().timestamp())
        return AsyncSession(engine="http://other.test", transport=transport, clock=clock)

    async def make_samples(self) -> list[dict[str, str]]:
        return sample_rows(200)

    async def make_spec(self) -> JobSpec:
        return JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.example.com/train:1")

    async def make_specs(self) -> list[JobSpec]:
        return [attrs.evolve(await self.make_spec(), env={"SEED": str(seed)}) for seed in range(3)]

    async def make_lost_answer(self) -> None:
        """Let the next submit be lost on its way, so that nobody knows whether it arrived."""
        self.request.getfixturevalue("gts_faults").append(faults.cut("/userJob", is_after=False))


@pytest.fixture
def scenery(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in an empty folder, with no settings but those of the embedded servers that the block runs with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for variable in ENVIRONMENT.values():
        monkeypatch.delenv(variable, raising=False)
    wanted = request.getfixturevalue("block").runs_with
    for server in EMBEDDED.keys() & wanted:
        for name, value in settings_of(request.getfixturevalue(server)).items():
            monkeypatch.setenv(name, value)
    if "data_files" in wanted:
        write_sample(tmp_path)


def check_output(block: Block, printed: str) -> None:
    """Compare what was printed with the block of text that follows, if one does."""
    following = RUN[RUN.index(block) + 1 :]
    if not following or following[0].language != "text" or following[0].page != block.page:
        return
    promised = following[0].code
    if "figures vary" in following[0].markers:
        promised, printed = (re.sub(r" *\d+(\.\d+)?| \(unseen\)", "", text) for text in (promised, printed))
    assert printed == promised


@pytest.mark.usefixtures("scenery")
@pytest.mark.parametrize("block", of_kind("fragment"))
async def test_a_fragment_runs(
    block: Block, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    code = compile(block.located, block.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    async with AsyncExitStack() as stack:
        scene = Scene(request, stack)
        names = {name: await scene.give(name) for name in block.runs_with}
        capsys.readouterr()
        running = eval(code, names)
        if running is not None:
            await running
    check_output(block, capsys.readouterr().out)


Started = dict[str, subprocess.Popen[str]]
EMBEDDED = {"embedded_engine": EmbeddedEngine, "embedded_cloud": EmbeddedCloud}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """Start all programs and example tests at once, each alone in a folder with its servers: mostly they wait."""
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())
        processes: Started = {}
        for block in PYTHON:
            if block.kind not in ("program", "tests"):
                continue
            folder = tmp_path_factory.mktemp("block")
            environment = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT.values()}
            environment["XDG_CONFIG_HOME"] = str(folder / "config")
            for name in EMBEDDED.keys() & block.runs_with:
                made = EMBEDDED[name](tmp_path_factory.mktemp(name))
                server = stack.enter_context(portal.wrap_async_context_manager(made))
                environment |= settings_of(server)
            if "data_files" in block.runs_with:
                write_sample(folder)
            (folder / FILES[block.kind]).write_text(block.located, "utf-8")
            processes[str(block)] = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *COMMANDS[block.kind], FILES[block.kind]],
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(processes[str(block)].kill)
        yield processes


FILES = {"program": "program.py", "tests": "test_example.py"}
COMMANDS = {
    "program": ["-W", "error"],
    "tests": ["-m", "pytest", "-qWerror", "-pno:cacheprovider", "-oasyncio_default_fixture_loop_scope=function"],
}


def settings_of(server: EmbeddedEngine | EmbeddedCloud) -> dict[str, str]:
    if isinstance(server, EmbeddedEngine):
        return {"GTS_ASYNC_ENGINE": server.url}
    return {"GTS_ASYNC_CLOUD": server.url, "GTS_ASYNC_TOKEN": server.token}


@pytest.mark.slow
@pytest.mark.parametrize("block", of_kind("program"))
def test_a_program_runs(block: Block, started: Started) -> None:
    printed, complaints = started[str(block)].communicate(timeout=60)
    assert (started[str(block)].returncode, complaints) == (0, "")
    assert printed
    check_output(block, printed)


@pytest.mark.slow
@pytest.mark.parametrize("block", of_kind("tests"))
def test_example_tests_pass(block: Block, started: Started) -> None:
    printed, complaints = started[str(block)].communicate(timeout=60)
    assert started[str(block)].returncode == 0, printed + complaints
    assert f"{block.code.count('def test_')} passed" in printed


def test_no_block_is_left_out() -> None:
    assert {block.language for block in RUN} <= LANGUAGES
    kinds = [block.kind for block in PYTHON]
    assert {"fragment", "program", "tests"} <= set(kinds)
    assert kinds.count("not run") == NOT_RUN


# The blocks of shell and settings


def commands_of(block: Block) -> list[list[str]]:
    """Give the commands of a shell block, each as its words, without redirections."""
    commands: list[list[str]] = []
    for line in block.code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        is_target = False
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;"):
                commands += [words] if words else []
                words = []
            elif set(word) <= set("<>"):
                is_target = True
            elif is_target:
                is_target = False
            else:
                words.append(word)
    return commands


@pytest.mark.parametrize("block", in_language("sh"))
def test_a_command_exists(block: Block) -> None:
    commands = commands_of(block)
    assert commands
    for command, *arguments in commands:
        assert command in {"gts-async", *OTHER_COMMANDS}
        if command == "gts-async":
            check_arguments(arguments)


def check_arguments(arguments: list[str]) -> None:
    """Let the command line's own parsers read them: the global options first, then the command's."""
    _, bound, _ = app.meta.parse_args(arguments, exit_on_error=False, print_error=False)
    app.parse_args(bound.args, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("arguments", ["job fetch", "task create --task-type poetry", "ping --loudly"])
def test_a_command_that_does_not_exist_is_noticed(arguments: str) -> None:
    with pytest.raises(CycloptsError):
        check_arguments(arguments.split())


@pytest.mark.parametrize("block", in_language("toml"))
def test_settings_are_settings(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "gts_async.toml"
    path.write_text(block.code, "utf-8")
    assert set(from_files((path,))) == set(tomllib.loads(block.code))


@pytest.mark.parametrize("page", TWINS)
def test_the_readme_begins_with_the_two_commands(page: str) -> None:
    first, second = (block.code for block in BLOCKS[page] if block.language == "sh" and "pip" in block.code)
    assert first == 'python -m pip install ".[local]" && gts-async demo\n'
    assert second == 'python -m pip install -e ".[test]" && python -m pytest\n'


# The tables


def first_cells(page: str, after: str) -> list[str]:
    """Give the names in backticks that begin the rows of the table whose head begins with `after`."""
    _, _, rest = (ROOT / page).read_text("utf-8").partition(f"\n| {after} ")
    table = rest.partition("\n\n")[0]
    assert table
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


def heads(page: str) -> dict[str, str]:
    """Give how the heads of the page's tables begin, by what they hold."""
    chinese = {"errors": "类", "codes": "退出码", "fixtures": "夹具", "extras": "附加组件"}
    english = {"errors": "class", "codes": "exit code", "fixtures": "fixture", "extras": "extra"}
    return chinese if page.endswith(".zh.md") else english


@pytest.mark.parametrize("page", TWINS)
def test_the_table_of_errors_names_every_error(page: str) -> None:
    real = [
        name
        for name, value in vars(_errors).items()
        if isinstance(value, type) and issubclass(value, gts_async.GtsAsyncError)
    ]
    assert first_cells(page, heads(page)["errors"]) == real


@pytest.mark.parametrize("page", TWINS)
def test_the_table_of_exit_codes_is_the_command_lines(page: str) -> None:
    assert first_cells(page, heads(page)["codes"]) == [str(int(code)) for code in Exit]


@pytest.mark.parametrize("page", TWINS)
def test_the_table_of_fixtures_is_the_plugins(page: str) -> None:
    real = {name for name in vars(plugin) if name.startswith(("gts_", "sxwl_", "embedded_", "chaos_"))}
    assert set(first_cells(page, heads(page)["fixtures"])) == real


@pytest.mark.parametrize("page", TWINS)
def test_the_table_of_extras_is_the_projects(page: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(first_cells(page, heads(page)["extras"])) == set(project["optional-dependencies"])


@pytest.mark.parametrize("page", TWINS)
def test_every_variable_of_the_environment_is_told(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    assert [variable for variable in ENVIRONMENT.values() if f"| `{variable}` |" not in text] == []


# The Chinese twin, and links


def plain_code(block: Block) -> str:
    """Give the block's code; of Python and shell, without comments."""
    if block.language == "sh":
        return re.sub(r"\s*#.*", "", block.code)
    if block.language != "python":
        return block.code
    tokens = tokenize.generate_tokens(io.StringIO(block.code).readline)
    return ast.dump(ast.parse(tokenize.untokenize(token for token in tokens if token.type != tokenize.COMMENT)))


def test_the_chinese_twin_has_the_same_blocks() -> None:
    english, chinese = (
        [(block.language, block.markers, plain_code(block)) for block in BLOCKS[page]] for page in TWINS
    )
    assert chinese == english


def test_the_chinese_twin_has_the_same_sections_and_tables() -> None:
    english, chinese = (re.findall(r"^(#+|\|-)", (ROOT / page).read_text("utf-8"), re.MULTILINE) for page in TWINS)
    assert chinese == english


@pytest.mark.parametrize("page", [*PAGES, "README.zh.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text("utf-8"))
    local = [link for link in links if not link.startswith("https://")]
    assert [link for link in local if not ((ROOT / page).parent / link).exists()] == []
