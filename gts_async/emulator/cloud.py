"""The SXWL cloud as a value: requests in, answers out, time from outside. The door to the files called ``cloud_*``.

Serving it, sending its callbacks and the store's bytes are for others; so are faults of the network, but for those
that only the cloud can time (`CloudQuirks`).
"""

from collections.abc import Iterable

from gts_async.emulator.backends import JobRunner
from gts_async.emulator.cloud_agent import Agent
from gts_async.emulator.cloud_answers import (
    DROPPED,
    MAX_BODY,
    Refusal,
    overloaded,
    timed_out,
    too_large,
    unreachable,
    website,
)
from gts_async.emulator.cloud_callbacks import CallbackDelivery, CallbackQueue
from gts_async.emulator.cloud_finetunes import WithFinetunes
from gts_async.emulator.cloud_front import Accounts, Asked, Front, Handler, cleaned
from gts_async.emulator.cloud_go import GoFront
from gts_async.emulator.cloud_head import HeadFront
from gts_async.emulator.cloud_java import JavaFront
from gts_async.emulator.cloud_jobs import JobTable
from gts_async.emulator.cloud_quirks import CallbackForm, CloudQuirks, Generation, Gpu
from gts_async.emulator.cloud_resources import DEFAULT_RESOURCES, Resource
from gts_async.emulator.store import ObjectStore
from gts_async.wire import Answer, Request

__all__ = ["DROPPED", "CallbackDelivery", "CallbackForm", "Cloud", "CloudQuirks", "Generation", "Gpu", "Resource"]


class Cloud:
    """One account's view of the service, and its cluster, in which `runner` runs the jobs.

    `token` is what the first user sends; `other_tokens` are further users'. Without any, everybody is the first user.
    Models are put into `store` when they are uploaded, and their URLs signed then, once. `resources` are what HEAD's
    look-ups find. Ids are unguessable if `secret` is. Not thread-safe; time has to go forward.
    """

    def __init__(
        self,
        runner: JobRunner,
        store: ObjectStore,
        *,
        token: str | None,
        generation: Generation = Generation.JAVA,
        quirks: CloudQuirks | None = None,
        other_tokens: tuple[str, ...] = (),
        resources: Iterable[Resource] = DEFAULT_RESOURCES,
        secret: bytes = b"",
    ) -> None:
        self._quirks = quirks = CloudQuirks() if quirks is None else quirks
        self._generation = generation
        table = JobTable(secret)
        accounts = Accounts(token, other_tokens, quirks.outdated_tokens)
        self._callbacks = CallbackQueue(quirks)
        self._agent = Agent(table, WithFinetunes(runner, quirks), store, self._callbacks, generation, quirks)
        self._front: Front
        match generation:
            case Generation.JAVA:
                self._front = JavaFront(table, quirks, accounts)
            case Generation.GO:
                self._front = GoFront(table, quirks, accounts)
            case Generation.HEAD:
                self._front = HeadFront(table, quirks, accounts, resources)
        self._requests = 0
        self._creates = 0

    def answer(self, request: Request, now: float) -> Answer:
        """Answer one request as of `now` (Unix seconds); `request.path` is what the host is asked for (``/api/…``).

        `DROPPED` stands for a connection that ends without an answer.
        """
        self._advance(now)
        self._requests += 1
        if self._requests in self._quirks.overloaded:
            return overloaded(self._generation)
        if not cleaned(request.path).startswith(("/api", "/auth")):
            return website(request.method)
        if isinstance(request.body, bytes) and len(request.body) > MAX_BODY:
            return too_large(self._generation)
        return self._routed(request, now)

    def callbacks(self, now: float) -> tuple[CallbackDelivery, ...]:
        """Give the callbacks that have become due by `now` and were not given before; the caller is to send them."""
        self._advance(now)
        return self._callbacks.take(now)

    def _advance(self, now: float) -> None:
        struck = self._front.billing.due(now) if isinstance(self._front, HeadFront) else None
        if struck is not None and isinstance(self._front, HeadFront):
            self._move(struck)
            self._front.billing.strike(struck)
        self._move(now)

    def _move(self, now: float) -> None:
        rounds = self._agent.advance(now)
        if rounds is not None and isinstance(self._front, HeadFront):
            self._front.inference.advance(*rounds)

    def _routed(self, request: Request, now: float) -> Answer:
        if self._generation is Generation.HEAD and not cleaned(request.path).startswith("/api/"):
            return DROPPED  # no route: the gateway writes a 404, and panics before it is sent (`gateway/handler.go`)
        user = self._front.user(request)
        if isinstance(user, Answer):
            return user
        if self._requests in self._quirks.unreachable:
            return unreachable(self._generation)
        handler = self._front.handler(request, now)
        return handler if isinstance(handler, Answer) else self._handled(handler, Asked(request, user, now))

    def _handled(self, handler: Handler, asked: Asked) -> Answer:
        try:
            answer = handler(asked)
        except Refusal as refusal:
            return self._front.refused(refusal.message, asked.now)
        if not self._front.is_create(handler):
            return answer
        self._creates += 1
        if self._creates in self._quirks.dropped_creates:
            return DROPPED
        return timed_out(self._generation) if self._creates in self._quirks.timed_out_creates else answer
