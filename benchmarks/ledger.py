"""The ledger of a batch: which creates the cloud carried out, beside what the journal and the last run tell of them."""

import collections
import shutil
import sqlite3
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import attrs
import msgspec

Journaled = Mapping[str, str | None]
"""What a journal says of each spec that it has: the job's id, or None for an intent that nothing is known of yet."""


@attrs.define(kw_only=True)
class Create:
    """One create that reached the cloud, sent by the run of that number; times are monotonic seconds."""

    name: str
    run: int
    arrived: float
    job_id: str | None = None
    answered: float | None = None


@attrs.frozen(kw_only=True)
class Told:
    """What a run told of one spec: its job's id, or the name of the error that it ended with."""

    name: str
    job_id: str | None = None
    error: str | None = None
    text: str = ""


@attrs.frozen(kw_only=True)
class Kill:
    """One run's sudden end: when it came, in monotonic seconds, and what the journal held right after."""

    run: int
    at: float
    journaled: Journaled


@attrs.frozen
class Landing:
    """The specs that a kill cut short, by how far their creates had got."""

    unsent: frozenset[str]
    in_flight: frozenset[str]
    unnoted: frozenset[str]

    @property
    def is_idle(self) -> bool:
        """True if nothing was cut short."""
        return not (self.unsent or self.in_flight or self.unnoted)


def landings(kills: Sequence[Kill], creates: Iterable[Create]) -> list[Landing]:
    """Tell where each kill of a batch landed; `creates` are all of the batch, those that arrived after a kill too.

    An intent counts for the first kill that left it behind. With several runs at once it may be another run's, which
    was just about to send it.
    """
    by_run: dict[int, list[Create]] = collections.defaultdict(list)
    first: dict[str, int] = {}
    for create in creates:
        by_run[create.run].append(create)
        first[create.name] = min(create.run, first.get(create.name, create.run))
    left_behind: set[str] = set()
    found = []
    for kill in kills:
        mine = by_run[kill.run]
        in_flight = {c.name for c in mine if c.answered is None or c.answered > kill.at}
        unnoted = {c.name for c in mine if c.name not in in_flight and kill.journaled.get(c.name) is None}
        open_intents = {name for name, job_id in kill.journaled.items() if job_id is None}
        unsent = {name for name in open_intents - left_behind if name not in first or first[name] > kill.run}
        left_behind |= open_intents
        found.append(Landing(frozenset(unsent), frozenset(in_flight), frozenset(unnoted)))
    return found


def journaled(journal: Path) -> Journaled:
    """Read what a journal holds, from a copy: to open the file itself would mend what a kill left of it."""
    for _ in range(5):
        with tempfile.TemporaryDirectory() as folder, suppress(sqlite3.DatabaseError):
            for ending in ("", "-wal"):
                with suppress(FileNotFoundError):
                    shutil.copyfile(f"{journal}{ending}", f"{folder}/journal{ending}")
            if not Path(folder, "journal").exists():
                return {}
            return _rows(f"{folder}/journal")
    # Another program kept on writing while it was copied.
    return _rows(str(journal))


def _rows(path: str) -> Journaled:
    connection = sqlite3.connect(path)
    try:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'intents'").fetchall():
            return {}
        rows = connection.execute("SELECT spec, job_id FROM intents").fetchall()
    finally:
        connection.close()
    return {msgspec.json.decode(spec)["run_command"].split()[-1]: job_id for spec, job_id in rows}


@attrs.frozen(kw_only=True)
class Verdict:
    """What became of a batch's specs: names, each list empty if all is well, and some counts.

    `lost` have no job and were not told as unknown; `doubled` have several. `mixed_up` were told, or are in the
    journal, with an id that is not their job's. `untold` lack an outcome, or have several, from some last run.
    `refused` ended with an error although the cloud refuses nothing. `unwritten` were told with an id that the journal
    lacks. Of what kills cut short, `listed` had arrived and their jobs were found, `sent_again` had not.
    """

    lost: Sequence[str]
    doubled: Sequence[str]
    mixed_up: Sequence[str]
    untold: Sequence[str]
    refused: Sequence[str]
    unwritten: Sequence[str]
    unknown: Sequence[str]
    listed: int
    sent_again: int


def judged(
    names: Collection[str],
    creates: Iterable[Create],
    journaled: Journaled,
    last_runs: Sequence[Sequence[Told]],
    cut: Sequence[Landing],
) -> Verdict:
    """Compare what the cloud made of the specs `names` with the journal and with what each last run told."""
    made: dict[str, list[str | None]] = collections.defaultdict(list)
    for create in creates:
        made[create.name].append(create.job_id)
    told = [outcome for run in last_runs for outcome in run]
    unknown = {outcome.name for outcome in told if outcome.error == "OutcomeUnknown"}
    with_ids = [(outcome.name, outcome.job_id) for outcome in told if outcome.error is None]
    noted = [(name, job_id) for name, job_id in journaled.items() if job_id is not None]
    told_by_each = [collections.Counter(outcome.name for outcome in run) for run in last_runs]
    well = {name for name, _ in with_ids} - unknown
    reached = frozenset[str]().union(*(landing.in_flight | landing.unnoted for landing in cut))
    unsent = frozenset[str]().union(*(landing.unsent for landing in cut)) - reached
    return Verdict(
        lost=[name for name in names if not made[name] and name not in unknown],
        doubled=[name for name in names if len(made[name]) > 1],
        mixed_up=sorted({name for name, job_id in (*with_ids, *noted) if job_id not in made[name]}),
        untold=[name for name in names if any(counts[name] != 1 for counts in told_by_each)],
        refused=[f"{o.name}: {o.error}: {o.text}" for o in told if o.error not in (None, "OutcomeUnknown")],
        unwritten=sorted({name for name, _ in with_ids if journaled.get(name) is None}),
        unknown=sorted(unknown),
        listed=sum(1 for name in reached if name in well and len(made[name]) == 1),
        sent_again=sum(1 for name in unsent if name in well and len(made[name]) == 1),
    )
