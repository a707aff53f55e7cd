"""What HEAD looks at before it makes anything, the balance and the quota of a kind of GPU; and some of its errors."""

import math
from collections.abc import Callable

from gts_async.emulator.cloud_answers import Refusal
from gts_async.emulator.cloud_jobs import HeadStatus, JobTable, User
from gts_async.emulator.cloud_quirks import CloudQuirks

NOT_FOUND = "数据库查询错误"
"""Also said when the database itself has failed (`logic/consts.go`)."""

NO_ACCESS = "无权访问该任务"
NO_ROWS = "sql: no rows in result set"
MINUTE = 60.0


class Billing:
    """Every user's balance as time goes by, and the billing, once a minute, that ends the jobs of who has run out."""

    def __init__(self, table: JobTable, quirks: CloudQuirks) -> None:
        self._table = table
        self._quirks = quirks
        self._began: float | None = None
        self._now = 0.0
        self._has_struck = False

    @property
    def balance(self) -> float | None:
        """Yuan, None if there is no row."""
        is_broke = self._began is not None and self._now >= self._began + self._quirks.broke_after
        return -0.01 if is_broke else self._quirks.balance

    def due(self, now: float) -> float | None:
        """Give the moment by `now` at which the jobs are to be deleted, if they are not yet."""
        if self._began is None:
            self._began = now
        self._now = max(self._now, now)
        if self._has_struck or math.isinf(self._quirks.broke_after):
            return None
        at = self._began + math.ceil(self._quirks.broke_after / MINUTE) * MINUTE
        return at if at <= now else None

    def strike(self, at: float) -> None:
        """Delete all jobs; nothing can be created any more, so this happens once."""
        self._has_struck = True
        self._table.delete_numbered({row.number for row in self._table}, at)


class Limits:
    """The limits of every user; `services` gives how many GPUs of a kind the inference services of one use."""

    def __init__(
        self, table: JobTable, billing: Billing, services: Callable[[User, str], int], quirks: CloudQuirks
    ) -> None:
        self._table = table
        self._billing = billing
        self._services = services
        self._quirks = quirks

    def check(self, what: str, user: User, gpu: str, need: int) -> None:
        """Raise Refusal if the user may not have `need` more GPUs of that kind (`job/quota.go: CheckQuota`).

        Only what runs is counted, not what is queued; a kind without a quota is unlimited.
        """
        balance = self._billing.balance
        if balance is None:
            raise Refusal(NO_ROWS)
        if balance < 0:
            raise Refusal("余额不足")
        quota = self._quirks.quotas.get(gpu)
        if quota is None:
            return
        left = quota - self._running(user, gpu) - self._services(user, gpu)
        if need > left:
            raise Refusal(f"{what} CheckQuota userId: {user.name} gpu: {gpu} left: {left} need: {need}")

    def _running(self, user: User, gpu: str) -> int:
        rows = self._table.of_user(user)
        running = [row for row in rows if row.work_status == HeadStatus.RUNNING and row.text("gpuType") == gpu]
        return sum(int(row.columns.get("gpuNumber", 0)) for row in running)
