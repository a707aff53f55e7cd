"""Halving: asks for the values of many items at once and, if that is refused, finds out which of them are to blame.

Whom an error may blame is told by whoever knows the service.
"""

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Generic, TypeVar

import attrs

from gts_async._flow.fanout import Outcome

Item = TypeVar("Item")
Value = TypeVar("Value")

MAX_STRANGERS = 3
"""Items that may fail alone, for a doubtful reason, while nothing at all has been answered yet."""

SURE_AFTER, STEADY_AFTER, WAVERING = 3, 3, 3
"""Times that an item must have been refused, with others and alone, and items that were refused for good by then; else
an item is asked alone once more, after a pause. So many times it is where what was refused was answered later."""

FREE_EXTRA, EXTRA_PER_ANSWER = 64, 4
"""Requests that the search for bad items may cost in all, and that many more for each item answered."""

TIMES_TOO_MANY = 2
"""Batches that fail as a whole and not in halves, after which that many items at once count as too many."""


class Blame(Enum):
    """Whom an error is about."""

    SERVER = "server"
    """No item: it ends everything."""
    DOUBTFUL = "doubtful"
    """An item, or whoever was asked; how others fare tells."""
    ITEMS = "items"
    """An item, or so many at once: whoever was asked has been seen to answer since."""
    ITEM = "item"
    """Surely an item: the server has looked at it."""


async def _at_once() -> None:
    """Do not pause."""


class Halving(Generic[Item, Value]):
    """Gives each of many items its outcome, one request for all if none is bad.

    `ask` gives one value per item. An error that may be an item's is followed up: items that `named` finds in it are
    taken out, others are found by halving, in at most log2(n) + 2 further requests for one of n, and twice as many for
    each of several. Before anything is halved for a doubtful error, and before an item is blamed for it, the server
    must have answered for another, which costs up to two more: one that it has answered before or, as long as there is
    none, one of up to `MAX_STRANGERS` asked alone. If it does not, the error is raised: it is the server's. The first
    items to blame, and others that were refused but a few times, are asked for once more, after a `pause`; all are, and
    several times, once a server has answered what it refused before. The error is raised, too, when more is refused
    than answered, so that the search costs more than `FREE_EXTRA` + `EXTRA_PER_ANSWER` for each item that was answered.
    `on_extra` is told of each request that the search costs.
    """

    def __init__(
        self,
        ask: Callable[[Sequence[Item]], Awaitable[Sequence[Value]]],
        blamed: Callable[[Exception], Blame],
        named: Callable[[Exception, Sequence[Item]], Sequence[int]] = lambda error, items: (),
        on_extra: Callable[[], None] = lambda: None,
        pause: Callable[[], Awaitable[object]] = _at_once,
    ) -> None:
        self.ask = ask
        self.blamed = blamed
        self.named = named
        self.on_extra = on_extra
        self.pause = pause
        self.extra = 0
        self.has_wavered = False
        self.steady = 0
        self._answered = 0
        self._strangers: list[Item] = []
        self._good: list[Item] = []
        self._most: int | None = None
        self._too_many = 0

    async def outcomes(self, items: Sequence[Item]) -> list[Outcome[Item, Value]]:
        """Give the outcomes in the items' order; raises what is not to be blamed on an item."""
        most = self._most or len(items)
        found: list[Outcome[Item, Value]] = []
        for start in range(0, len(items), max(1, most)):
            part = items[start : start + most]
            found += await _Search(self, part).outcomes()
        return found

    def answered(self, items: Sequence[Item]) -> None:
        """Note that these were answered."""
        self._answered += len(items)
        if not self._good:
            self._good = [items[0]]

    def count(self, error: Exception) -> None:
        """Count a request that the search costs; raises `error` if it has cost too much."""
        self.extra += 1
        if self.extra > FREE_EXTRA + EXTRA_PER_ANSWER * self._answered:
            error.add_note(f"{self.extra} requests were made to find out which items are bad: too many are")
            raise error
        self.on_extra()

    def doubts(self, refused: int) -> int:
        """Give how often to ask once more for an item that was refused so many times, before it is blamed."""
        if self.has_wavered:
            return WAVERING
        return int(refused < SURE_AFTER or self.steady < STEADY_AFTER)

    def only_together(self, size: int) -> None:
        """Note that so many items failed together, and none of them alone."""
        self.has_wavered = True
        self._too_many += 1
        if self._too_many >= TIMES_TOO_MANY:
            self._most, self._too_many = -(-size // 2), 0

    async def check_server(self, items: Sequence[Item], error: Exception) -> None:
        """Raise `error`, which `items` got together, if the server does not answer well for any other either."""
        if not self._good and len(items) == 1:
            self._add_stranger(items[0])
        for item in self._good or _some(items):
            if await self._is_answered(item, error):
                return
        if self._good or len(self._strangers) >= MAX_STRANGERS:
            error.add_note("and so does every other request now: it is not about what was asked")
            raise error

    async def _is_answered(self, item: Item, error: Exception) -> bool:
        self.count(error)
        try:
            await self.ask([item])
        except Exception as other:
            if self.blamed(other) is Blame.SERVER:
                raise
            self._add_stranger(item)
            return False
        self._good = [item]
        return True

    def _add_stranger(self, item: Item) -> None:
        if not any(item is known for known in self._strangers):
            self._strangers.append(item)


def _some(items: Sequence[Item]) -> list[Item]:
    """Give some to try alone, from different places; none if there is only one."""
    places = sorted({len(items) // 2, len(items) - 1, 0}) if len(items) > 1 else ()
    return [items[place] for place in places]


@attrs.define
class _Tried(Generic[Item, Value]):
    item: Item
    tries: int = 0
    outcome: Outcome[Item, Value] | None = None


class _Search(Generic[Item, Value]):
    """One batch on its way to outcomes."""

    def __init__(self, halving: Halving[Item, Value], items: Sequence[Item]) -> None:
        self._halving = halving
        self._all: list[_Tried[Item, Value]] = [_Tried(item) for item in items]
        self._is_checked = False
        # On the way to the first bad item, what may well be good: usually it is, and then one request is enough for it.
        self._rest: list[_Tried[Item, Value]] = []
        self._has_first = False

    async def outcomes(self) -> list[Outcome[Item, Value]]:
        error = await self._ask(self._all)
        if error is not None:
            await self._take_apart(self._all, error)
            self._has_first = True
            if self._rest and (again := await self._ask_again(self._rest, error)) is not None:
                await self._take_apart(self._rest, again)
            is_nobody_bad = all(tried.outcome is not None and tried.outcome.is_ok for tried in self._all)
            if is_nobody_bad and self._halving.blamed(error) is not Blame.ITEM:
                self._halving.only_together(len(self._all))
        return [tried.outcome for tried in self._all if tried.outcome is not None]

    async def _ask(self, some: Sequence[_Tried[Item, Value]]) -> Exception | None:
        """Ask for some; gives what they were refused with. Raises what is nobody's fault here."""
        items = [tried.item for tried in some]
        for tried in some:
            tried.tries += 1
        try:
            values = await self._halving.ask(items)
        except Exception as error:
            if self._halving.blamed(error) is Blame.SERVER:
                raise
            return error
        for tried, value in zip(some, values, strict=True):
            tried.outcome = Outcome(tried.item, value, tries=tried.tries)
        self._is_checked = True
        self._halving.answered(items)
        return None

    async def _ask_again(self, some: Sequence[_Tried[Item, Value]], error: Exception) -> Exception | None:
        self._halving.count(error)
        return await self._ask(some)

    async def _take_apart(self, some: Sequence[_Tried[Item, Value]], error: Exception) -> None:
        """Find the outcomes of some who together got `error`."""
        while named := self._halving.named(error, [tried.item for tried in some]):
            for place in named:
                self._blame(some[place], error)
            some = [tried for tried in some if tried.outcome is None]
            again = await self._ask_again(some, error) if some else None
            if again is None:
                return
            error = again
        if len(some) == 1:
            await self._blame_alone(some[0], error)
            return
        if not self._is_checked and self._halving.blamed(error) is Blame.DOUBTFUL:
            await self._halving.check_server([tried.item for tried in some], error)
            self._is_checked = True
        await self._halve(some, error)

    async def _halve(self, some: Sequence[_Tried[Item, Value]], error: Exception) -> None:
        first, second = some[: len(some) // 2], some[len(some) // 2 :]
        refused = await self._ask_again(first, error)
        if refused is None and len(second) > 1:
            # Since the first half is good, the second would be refused as a whole: that need not be asked.
            await self._halve(second, error)
            return
        if refused is not None:
            if not self._has_first:
                self._rest += second
                await self._take_apart(first, refused)
                return
            await self._take_apart(first, refused)
        refused = await self._ask_again(second, error)
        if refused is not None:
            await self._take_apart(second, refused)

    async def _blame_alone(self, tried: _Tried[Item, Value], error: Exception) -> None:
        blamed = self._halving.blamed(error)
        if blamed is Blame.DOUBTFUL:
            # Has it gone since it answered last? Then others would be blamed for it, too.
            await self._halving.check_server([tried.item], error)
        if blamed is not Blame.ITEM:
            # That others are answered now does not tell that they would have been then.
            for _ in range(self._halving.doubts(tried.tries)):
                await self._halving.pause()
                again = await self._ask_again([tried], error)
                if again is None:
                    self._halving.has_wavered = True
                    return
                error = again
            self._halving.steady += 1
            error.add_note("other items are answered: it is about this one")
        self._blame(tried, error)

    def _blame(self, tried: _Tried[Item, Value], error: Exception) -> None:
        tried.outcome = Outcome(tried.item, error=error, tries=tried.tries)
