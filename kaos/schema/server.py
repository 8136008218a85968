"""About the server and who is asking."""

from __future__ import annotations

from kaos.value import Value


class ServerInfo(Value):
    """What a client has to know about a server.

    :param store: URL of its store; a client that finds `instance` in the store's directory is on the same
        machine and moves files to it without HTTP
    :param instance: random name of the store
    """

    version: str
    user: str
    store: str
    instance: str
    runtimes: list[str]
