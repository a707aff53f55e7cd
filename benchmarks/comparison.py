"""The jobs that a cloud has made, compared with what the client was told of each spec of a batch. Pure.

Specs may have equal content: then as many jobs of it are right as there were specs. A content is named by its number.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence

import attrs


@attrs.frozen
class Made:
    """A job that the cloud has made: its id, the content of its spec, and the mark that came with it, if any."""

    id: str
    content: int
    mark: str


@attrs.frozen
class Told:
    """An outcome: the content of its spec, and the job's id or the error's name; of an unknown one, its mark."""

    content: int
    job_id: str = ""
    error: str = ""
    mark: str = ""


UNKNOWN = frozenset({"OutcomeUnknown", "TimedOut"})
"""Names of the errors that say that the job may have been made."""

REFUSED = "QuotaExceeded"
NEVER_MADE = "NotSent"
"""Names of the errors that say that it was not; a job that was made all the same is lost."""


@attrs.frozen
class Findings:
    """What differs. All but `unknown` and `unsent` are faults; each lists what it is about, to be looked into.

    `twice`: contents with more jobs than specs. `same_mark`: marks that several jobs have. `unmarked`: jobs without a
    mark. `lost`: jobs that no outcome tells of. `phantoms`: ids that were told and never made. `mixed_up`: ids told for
    another content. `shared`: ids told to several specs. `untold`: contents with fewer outcomes than specs, or more.
    `refusals`: contents whose refusals by the cloud are not as many as those told. `errors`: outcomes with any other
    error. `unknown`: outcomes that leave it open, and whether a job of theirs was made. `unsent`: those that say that
    no create arrived.
    """

    twice: list[int]
    same_mark: list[str]
    unmarked: list[Made]
    lost: list[Made]
    phantoms: list[Told]
    mixed_up: list[Told]
    shared: list[str]
    untold: list[int]
    refusals: list[int]
    errors: list[Told]
    unknown: list[tuple[Told, bool]]
    unsent: list[Told]


def compare(
    specs: Mapping[int, int], made: Sequence[Made], told: Iterable[Told], refused: Mapping[int, int]
) -> Findings:
    """Compare what was `made` with what was `told`; `specs` and `refused` count specs and refusals by content."""
    told = list(told)
    contents = {job.id: job.content for job in made}
    ids = collections.Counter(one.job_id for one in told if one.job_id)
    jobs = collections.Counter(job.content for job in made)
    outcomes = collections.Counter(one.content for one in told)
    refusals = collections.Counter(one.content for one in told if one.error == REFUSED)
    marks = collections.Counter(job.mark for job in made if job.mark)
    unknown, lost = _unclaimed([job for job in made if job.id not in ids], told)
    return Findings(
        twice=[content for content, count in jobs.items() if count > specs.get(content, 0)],
        same_mark=[mark for mark, count in marks.items() if count > 1],
        unmarked=[job for job in made if not job.mark],
        lost=lost,
        phantoms=[one for one in told if one.job_id and one.job_id not in contents],
        mixed_up=[one for one in told if one.job_id and contents.get(one.job_id, one.content) != one.content],
        shared=[job_id for job_id, count in ids.items() if count > 1],
        untold=[content for content in specs.keys() | outcomes.keys() if outcomes[content] != specs.get(content, 0)],
        refusals=[content for content in refusals.keys() | refused if refusals[content] != refused.get(content, 0)],
        errors=[one for one in told if one.error and one.error not in {*UNKNOWN, REFUSED, NEVER_MADE}],
        unknown=unknown,
        unsent=[one for one in told if one.error == NEVER_MADE],
    )


def _unclaimed(jobs: Sequence[Made], told: Sequence[Told]) -> tuple[list[tuple[Told, bool]], list[Made]]:
    """Give each open outcome a job that nobody was told of, by mark or content; what is left over is lost."""
    left = list(jobs)
    unknown: list[tuple[Told, bool]] = []
    for one in told:
        if one.error not in UNKNOWN:
            continue
        mine = next((job for job in left if one.mark and one.mark in job.mark), None)
        mine = mine or next((job for job in left if job.content == one.content), None)
        if mine is not None:
            left.remove(mine)
        unknown.append((one, mine is not None))
    return unknown, left
