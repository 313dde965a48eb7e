"""Action models as a service that control loops ask over HTTP: the server and a client, which needs no torch.

A loop opens a session, sends what it observed step by step, and is answered with actions. The server keeps what the
model remembers of each session.
"""

from holdfast.serving.client import Client, OutOfOrder, ServerError, UnknownSession, Unreachable
from holdfast.serving.protocol import Answer

__all__ = ["Answer", "Client", "OutOfOrder", "ServerError", "UnknownSession", "Unreachable"]
