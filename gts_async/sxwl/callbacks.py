"""How the body of a callback is read. It is unsigned and may be lost, doubled, late or forged: a hint to look, no more.

Receiving callbacks over HTTP is not in here, that is `gts_async.callbacks`.
"""

import attrs

from gts_async._errors import UnexpectedAnswer, plain
from gts_async.sxwl.answers import read_url
from gts_async.sxwl.checks import is_plain_id
from gts_async.sxwl.dialects import dialect
from gts_async.sxwl.values import OLDER, JobStatus
from gts_async.wire import decode


@attrs.frozen
class Callback:
    """What a callback claims.

    `job_id` is None in every callback about a failed job: the servers leave it out (`cpod_status_logic.go`). `url`
    must not be fetched before a look at the job has brought the same. `word` is the cloud's own for the status.
    """

    job_id: str | None
    status: JobStatus
    url: str | None = attrs.field(default=None, repr=lambda url: "None" if url is None else "'…'")
    word: str = attrs.field(default="", repr=lambda word: repr(plain(word, 200)))


@attrs.frozen
class _Body:
    status: str
    # Documented is job_id; every server that ever called back wrote jobId.
    job_id: str | None = None
    jobId: str | None = None
    url: str | None = None


def read_callback(body: bytes) -> Callback:
    """Give what the body of a callback claims; raises UnexpectedAnswer for what no server has ever sent."""
    claimed = decode(body, _Body, call="callback")
    ids = {job_id for job_id in (claimed.job_id, claimed.jobId) if job_id}
    if len(ids) > 1:
        raise UnexpectedAnswer(call="callback", problem="it names two jobs")
    job_id = next(iter(ids), None)
    if job_id is not None and not is_plain_id(job_id):
        raise UnexpectedAnswer(call="callback", problem="what it names is not a job's id")
    status = dialect(OLDER).words.get(claimed.status, JobStatus.UNKNOWN)
    return Callback(job_id, status, read_url("callback", claimed.url), claimed.status)
