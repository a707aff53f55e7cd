"""Receives the cloud's callbacks: stored, answered, and then they wake the watch of the job that each is about.

`receiver` gives the ASGI app. URLs are made in `urls`, callbacks kept in `store`; how their bodies are read is in
``sxwl/callbacks.py``.
"""

from gts_async.callbacks.asgi import Receive, Scope, Send
from gts_async.callbacks.limits import CallbackLimits, Received
from gts_async.callbacks.receiver import Receiver, receiver
from gts_async.callbacks.store import StoredCallback

__all__ = ["CallbackLimits", "Receive", "Received", "Receiver", "Scope", "Send", "StoredCallback", "receiver"]
