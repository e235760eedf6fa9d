"""A request that comes twice is done once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from pipelinehost.errors import AlreadyExists
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost_server.store.reads import Reads
from pipelinehost_server.store.transaction import Transaction

_M = TypeVar("_M", bound=Message)


@dataclass(frozen=True, slots=True)
class Once:
    """A caller's ``request_id`` with what it stands for.

    What it changes is done as a :meth:`job`, so that the answer and the change are one transaction. Who needs
    something of an environment first asks :meth:`recall` before that.
    """

    principal: str
    """Who asks: an id means nothing to anybody else."""
    request_id: str
    """As the caller chose it; empty for a request that may be done again."""
    method: str
    """Full name of the method."""
    body_sha256: bytes
    """Digest of the request."""
    require: Callable[[Reads], None] | None = None
    """Raises unless the caller may do this, as of the store that it is given."""

    def job(self, answer: type[_M], work: Callable[[Transaction], _M]) -> Callable[[Transaction], _M]:
        """What does the work if it was not done before, and only while its caller may.

        Args:
            answer: the type of what is answered.
            work: changes something, and gives the answer.

        Raises:
            As :meth:`recall` does, when the job is run.
        """

        def job(transaction: Transaction) -> _M:
            done = self.recall(answer, transaction)
            if done is None:
                done = work(transaction)
                self.remember(transaction, done)
            return done

        return job

    def recall(self, answer: type[_M], store: Reads) -> _M | None:
        """The answer to this request, if it was done before; but first whether it may be done by now.

        Raises:
            PermissionDenied: the caller has lost the right since the call began; or else, as the rights tell,
            NotFound: the caller has, and may not even see it.
            AlreadyExists: the id was used for another request.
        """
        if self.require is not None:
            self.require(store)
        seen = store.recall(self.principal, self.request_id) if self.request_id else None
        if seen is None:
            return None
        method, body_sha256, response = seen
        if (method, body_sha256) != (self.method, self.body_sha256):
            raise AlreadyExists(
                ErrorReason.ERROR_REASON_REQUEST_ID_REUSED,
                f"request_id {self.request_id!r} was used before, for another request "
                f"({method.rpartition('/')[2]})",
                remedy="Choose a new request_id for a new request.",
                metadata={"request_id": self.request_id},
            )
        return answer.FromString(response)

    def remember(self, transaction: Transaction, response: Message) -> None:
        """Keeps the answer for when the request comes again."""
        if self.request_id:
            transaction.remember(
                self.principal, self.request_id, self.method, self.body_sha256, response.SerializeToString()
            )
