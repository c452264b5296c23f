"""Answers of the HTTP server as values: status, headers, body in the request's encoding."""

from __future__ import annotations

from dataclasses import dataclass

from arobust_otel.otlp.status import Encoding, failure

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP response."""

    status: int
    body: bytes
    content_type: str
    headers: Headers = ()


class Refusal(Exception):
    """A request is refused: carries the status and what the client should read.

    `retry_after_seconds` is set where the same request may succeed later.
    """

    def __init__(
        self, status: int, message: str, retry_after_seconds: int | None = None, headers: Headers = ()
    ) -> None:
        """Keep the parts; the answer is made where the request's encoding is known."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.headers = headers


def refusal_answer(refusal: Refusal, encoding: Encoding) -> Answer:
    """A refusal as google.rpc.Status in the request's encoding."""
    headers = refusal.headers
    if refusal.retry_after_seconds is not None:
        headers = (*headers, (b"retry-after", b"%d" % refusal.retry_after_seconds))
    body = failure(refusal.status, encoding, refusal.message)
    return Answer(refusal.status, body, encoding.value, headers)


def json_answer(status: int, body: bytes) -> Answer:
    """A body that is JSON already."""
    return Answer(status, body, Encoding.JSON.value)
