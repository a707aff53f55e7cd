"""What HEAD looks at before it makes anything: the balance, and the quota of a kind of GPU. And two of its errors."""

from collections.abc import Callable

from gts_async.emulator.cloud_answers import Refusal
from gts_async.emulator.cloud_jobs import HeadStatus, JobTable, User
from gts_async.emulator.cloud_quirks import CloudQuirks

NOT_FOUND = "数据库查询错误"
"""Also said when the database itself has failed (`logic/consts.go`)."""

NO_ACCESS = "无权访问该任务"


class Limits:
    """The limits of every user; `services` gives how many GPUs of a kind the inference services of one use."""

    def __init__(self, table: JobTable, services: Callable[[User, str], int], quirks: CloudQuirks) -> None:
        self._table = table
        self._services = services
        self._quirks = quirks

    def check(self, what: str, user: User, gpu: str, need: int) -> None:
        """Raise Refusal if the user may not have `need` more GPUs of that kind (`job/quota.go: CheckQuota`).

        Only what runs is counted, not what is queued; a kind without a quota is unlimited.
        """
        if self._quirks.balance < 0:
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
