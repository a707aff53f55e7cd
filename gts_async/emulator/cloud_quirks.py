"""The oddities of the real SXWL cloud as switches, and its generations; who acts on them lies elsewhere."""

from collections.abc import Mapping
from enum import Enum

import attrs
from attrs.validators import ge, gt


class Generation(Enum):
    """A server generation, named by the month it came into service."""

    JAVA = "2023-12"
    """Java serves the documented API and hardly checks anything."""
    GO = "2024-01"
    """Go serves the same paths, with strict JSON types and plain-text errors."""
    HEAD = "2024-04"
    """Go with renamed paths and fields, JSON errors, finer statuses and no callbacks."""


class CallbackForm(Enum):
    """Who wrote the code that sends callbacks."""

    GO = "go"
    """The Go scheduler, from 2023-12-19 on: ``jobId``, empty after a failure."""
    JAVA = "java"
    """The Java server before that: no id at all after a failure."""
    DOCUMENTED = "documented"
    """What the guide promises and no server ever sent: ``job_id``."""


@attrs.frozen
class Gpu:
    """A kind of GPU in the cluster: its label, yuan for one GPU and hour, and how many there are."""

    name: str
    price: float
    total: int = 1024


@attrs.frozen(kw_only=True)
class CloudQuirks:
    """What the emulated cloud copies of the real one's behaviour, and what befalls it.

    Switches default to what the real service does. What there happens by chance is off, and is given by ordinals: the
    first request, or the first create, is number 1. Times are in seconds.
    """

    agent_period: float = attrs.field(default=10.0, validator=gt(0))
    """How often the cluster's agent fetches jobs and reports on them (`portal_sync.go`, `cpodmanager.go`)."""
    gpus: tuple[Gpu, ...] = (Gpu("NVIDIA-GeForce-RTX-3090", 3.5), Gpu("NVIDIA-A100-SXM4-80GB", 20.0))
    """A job for any other kind, or for more than there are, is queued for ever."""

    shows_strangers_job: bool = True
    """Java: a status without a job id is that of the newest job of anybody (`UserJobMapper.xml`). Off: ``{}``."""
    shows_deleted: bool = True
    """Java: a deleted job keeps its last status, mostly "working", for ever. Off: ``{}``."""
    mass_assigns: bool = True
    """Java: keys of a create that name columns (``workStatus``, ``deleted``) fill them. Off: they are passed over."""
    bad_types_block_cluster: bool = True
    """Java: while there is a job whose types the agent cannot decode, no job of the cluster is started or ended.

    Off: only that job is never started.
    """
    misspells_success: bool = False
    """Java: "sucess", as on the API's first day (2023-12-04)."""
    counts_deleted: bool = True
    """Go: ``totalElements`` of a listing counts deleted jobs."""
    success_is_no_rows: bool = True
    """HEAD: the old status call answers 400 for a success, as no file rows are written any more. Off: success, url."""
    stop_overwrites: bool = True
    """HEAD: stopping a finished job makes it stopped. Off: its status stays, the answer is the same."""

    fails_first: bool = False
    """A job that runs is first reported as failed, later as it ends (the time limit struck during the image pull)."""
    stop_race: bool = False
    """HEAD: a report in flight turns a stopped job back to running, and nothing ever corrects that."""
    url_delay: float = attrs.field(default=0.0, validator=ge(0))
    """How long a success has no file row: no url on Java, 400 on Go, and the callback is lost. May be infinite."""

    callbacks: CallbackForm = CallbackForm.GO
    callback_delay: float = attrs.field(default=0.0, validator=ge(0))
    callback_copies: int = attrs.field(default=1, validator=ge(0))
    """How often each callback is sent; the real service never repeats one, but may lose it (0)."""

    overloaded: frozenset[int] = attrs.field(default=frozenset(), converter=frozenset)
    """Requests that are shed with a 503 and not looked at."""
    unreachable: frozenset[int] = attrs.field(default=frozenset(), converter=frozenset)
    """Requests for which the gateway does not reach the server behind it; they are not carried out."""
    timed_out_creates: frozenset[int] = attrs.field(default=frozenset(), converter=frozenset)
    """Creates that are carried out, but answered as a timeout of the server."""
    dropped_creates: frozenset[int] = attrs.field(default=frozenset(), converter=frozenset)
    """Creates that are carried out, but whose connection ends without an answer."""

    outdated_tokens: frozenset[str] = attrs.field(default=frozenset(), converter=frozenset)
    """Tokens of the first user that were given out before HEAD: good, but HEAD refuses them with a bare 401."""
    balance: float | None = 100.0
    """HEAD: yuan of every user; below 0 nothing can be created. None: there is no row of it, which is an error."""
    broke_after: float = attrs.field(default=float("inf"), validator=ge(0))
    """HEAD: after which the balance is below 0, counted from the first request.

    The next billing, one a minute, then deletes all jobs of every user (`cost/balance.go`).
    """
    quotas: Mapping[str, int] = attrs.field(factory=dict)
    """HEAD: for a kind of GPU, how many a user may have running; only what runs already is counted."""
    finetune_time: float = attrs.field(default=60.0, validator=ge(0))
    adapter_delay: float = attrs.field(default=10.0, validator=ge(0))
    """HEAD: how long after a finetune's success its adapter is registered; until then its status is a 400."""
    deploy_time: float = attrs.field(default=60.0, validator=ge(0))
    """HEAD: how long an inference service takes from its assignment until it runs."""
    inference_url: str = "http://master.llm.sxwl.ai:30005"
    """Where inference services are said to be: another host than the API's, and without TLS."""
