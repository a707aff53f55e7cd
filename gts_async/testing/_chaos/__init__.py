"""How a chaos server works; what users need of it is `ChaosServer` and the actions in `gts_async.testing.chaos`."""
