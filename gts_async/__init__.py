"""The asyncio client for GTS Engine and the SXWL cloud."""
