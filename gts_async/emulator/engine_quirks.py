"""The oddities of the real GTS Engine, each a switch; who acts on them is `engine` and what it is made of."""

from typing import Any, Self

import attrs


@attrs.frozen(kw_only=True)
class EngineQuirks:
    """What the emulated engine copies of the real one's behaviour (GTS Engine 0.1.4, `gts_engine_service.py`).

    The defaults are the real service. With a switch off, that one thing is done as a careful server would do it; where
    such a server has to refuse, it says so with ret_code -104, which the real one never uses.
    """

    bagualu_success_is_500: bool = True
    """A "Train Success" without a measured accuracy cannot be read: 500 for ever. Off: test_acc is null."""
    closes_after_500: bool = True
    """Every 500 is followed by the end of the connection, unannounced; whoever serves the engine acts on this."""
    redirects_slashes: bool = True
    """A path with a slash too many or too few gets a 307 with an absolute Location. Off: it is served as well."""
    accepts_unsafe_names: bool = True
    """Task ids and file names with slashes, spaces or shell characters are taken. Off: refused."""
    accepts_any_pipeline: bool = True
    """A task may be created for engines and task types that nothing can train. Off: refused."""
    opens_folders: bool = True
    """An empty data file name opens the data folder: 500. Off: told as a missing file, in an upload refused."""
    starts_bad_orders: bool = True
    """A training that cannot start (train_mode, shell characters) is "scheduled" with 200 and dies. Off: refused."""
    trains_twice: bool = True
    """A second training of a task in training is accepted, beside the first. Off: refused."""
    wipes_outputs: bool = True
    """An accepted training deletes the model of the one before. Off: it can be loaded until the next success."""
    keeps_old_status: bool = True
    """Until the new process has done its imports, the status is still the old one. Off: "On Training" at once."""
    refuses_early_stop: bool = True
    """A stop before "On Training" is refused with -103, and the training goes on. Off: it stops the process."""
    fails_to_stop_dead: bool = True
    """Stopping a training whose process is gone is a 500, and the status stays. Off: the task is stopped."""
    hides_deaths: bool = True
    """A process that is killed, or dies in its imports, leaves the status as it was. Off: it shows as failed."""
    stops_newest_only: bool = True
    """A stop kills the process that wrote its pid last; another of the task goes on and writes its end over it."""
    serves_any_id: bool = True
    """A loaded model answers for every task id of its pipeline, whatever the status. Off: only for its own task."""
    fails_to_load_nothing: bool = True
    """Loading a task that has no model is a 500. Off: refused."""
    one_predict_per_load: bool = True
    """Bagualu classification deletes its folder after a predict: until it is loaded anew, the next one is a 500."""
    blind_end: bool = True
    """Ending inference frees whatever is loaded before it looks at the task, and writes 2 for whatever is named."""
    serving_survives_restart: bool = True
    """Status 5 stays through a restart of the service although nothing is loaded. Off: back to 2."""
    half_written_every: int = 0
    """Every n-th look at a status meets a half-written task_info.json: 500. The real service does so by chance."""

    @classmethod
    def none(cls) -> Self:
        """Give the engine without a single oddity."""
        off: dict[str, Any] = {field.name: type(field.default)() for field in attrs.fields(cls)}
        return cls(**off)
