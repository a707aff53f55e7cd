"""Pure servers that speak both protocols as the real services do, quirks included: ``answer(Request, now) → Answer``.

They hold no socket, clock or thread; who trains and who runs jobs is plugged in (`backends`). `gts_async.local` plugs
in real ones and serves them; `gts_async.testing` answers a session's requests with them directly.
"""
