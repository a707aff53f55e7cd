"""The demo's report: a line for each step with its time, the checks that did not hold, and the summary."""

import time
from collections.abc import Sequence

import attrs

from gts_async._net.events import Event
from gts_async.cli.exits import Exit
from gts_async.cli.show import Show, Update


@attrs.define
class Facts:
    """What the demo has counted and measured."""

    transitions: int = 0
    predictions: int = 0
    predictions_per_second: float = 0.0
    accuracy: float = 0.0
    jobs: int = 0
    callbacks: int = 0
    models: int = 0


class Report:
    """Tells steps as they are done and remembers which checks failed; `update` changes the live line."""

    def __init__(self, show: Show, update: Update) -> None:
        self.facts = Facts()
        self.update = update
        self.checks = 0
        self.failed: list[str] = []
        self._show = show
        self._began = time.monotonic()

    def step(self, name: str, text: str, style: str = "", *, more: Sequence[str] = (), **details: object) -> None:
        """Tell that something was done; `more` are lines for people, `details` go into the record only."""
        at = time.monotonic() - self._began
        record = {"at": round(at, 3), "step": name, "text": text, **details}
        self._show.data(
            record, "\n".join((f"{at:5.1f} s  {name:<10}  {text}", *(f"{'':21}{line}" for line in more))), style
        )

    def check(self, name: str, holds: bool, text: str) -> None:
        """Note a check; only one that does not hold is told: `text` says what was seen."""
        self.checks += 1
        if not holds:
            self.failed.append(name)
            self.step(name, f"FAILED: {text}", "bold red", is_failure=True)

    def heard(self, event: Event) -> None:
        """Count what sessions tell: the transitions of all watches."""
        self.facts.transitions += event.kind == "transition"

    def summary(self) -> Exit:
        """Tell how it went, and give the exit code: OK only if every check held."""
        facts = self.facts
        rate, accuracy = f"{facts.predictions_per_second:.0f} a second", f"accuracy {facts.accuracy:.3f}"
        more = (
            f"{facts.transitions} transitions seen",
            f"{facts.predictions} predictions, {rate}, {accuracy}",
            f"{facts.jobs} jobs succeeded, {facts.callbacks} callbacks received, {facts.models} models checked",
        )
        verdict, style = f"all {self.checks} checks held", "bold green"
        if self.failed:
            verdict = f"{len(self.failed)} of {self.checks} checks FAILED: {', '.join(self.failed)}"
            style = "bold red"
        details = attrs.asdict(facts)
        self.step("summary", verdict, style, more=more, is_ok=not self.failed, checks=self.checks, **details)
        return Exit.FAILED if self.failed else Exit.OK
