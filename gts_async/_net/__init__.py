"""The network: the only floor that knows httpx, connections, credentials and tries."""
