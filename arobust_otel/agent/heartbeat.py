"""Heartbeats: every two seconds to the master, in a thread of their own, so that no slow export delays one.

Sends what `compose` says, hands the reply's commands on, and keeps results of commands until the master has
them. What a heartbeat means stands in docs/heartbeat.md.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import requests
from opentelemetry.util.re import parse_env_headers

from arobust_otel import guard
from arobust_otel.agent.client.http_route import Route
from arobust_otel.agent.client.transport import base_url
from arobust_otel.model.heartbeat import PATH, Command, CommandResult, Heartbeat, Reply, decode_reply, encode

CALL_SECONDS = 2.0
MAX_REPLY_BYTES = 1024 * 1024
MIN_GAP_SECONDS = 0.05  # facts come in bursts
MIN_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS = 0.2, 30.0

# sequence number, final, results so far -> what to send
Compose = Callable[[int, bool, tuple[CommandResult, ...]], Heartbeat]


class HeartbeatSender:
    """Posts heartbeats until it is finished.

    Args:
        master: base URL of the master.
        compose: makes a heartbeat; called from the sender's thread.
        accept: takes a command of a reply; called from the sender's thread, must return at once.
        interval_seconds: until the master says another.

    Raises:
        ConfigurationError: `master` is no URL.
    """

    def __init__(
        self, master: str, compose: Compose, accept: Callable[[Command], None], interval_seconds: float = 2.0
    ) -> None:
        url = base_url(master) + PATH
        self._compose = compose
        self._accept = accept
        self._interval_seconds = interval_seconds
        self._session = _session()
        self._route = Route.find(self._session, url, {})
        self._condition = threading.Condition()
        self._sequence = 0
        self._results: list[CommandResult] = []
        self._asked = True
        self._ending = False
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="arobust-heartbeat", daemon=True)

    def start(self) -> None:
        """Send the first one now and the others in time."""
        self._thread.start()

    def beat_now(self) -> None:
        """Something happened that the master should know at once."""
        with self._condition:
            self._asked = True
            self._condition.notify_all()

    def add_result(self, result: CommandResult) -> None:
        """Tell the master what became of a command, at once and until it has been told."""
        with self._condition:
            self._results.append(result)
            del self._results[:-100]
        self.beat_now()

    @property
    def failures(self) -> int:
        """Heartbeats in a row that did not arrive."""
        return self._failures

    def beat(self, seconds: float = CALL_SECONDS) -> bool:
        """One heartbeat now, from the thread that calls; True where the master has it."""
        return self._beat(seconds)

    def finish(self, deadline_seconds: float, says_goodbye: bool = True) -> bool:
        """End the thread and send the final heartbeat; True where the master has it.

        Args:
            deadline_seconds: for both.
            says_goodbye: false where somebody else goes on under the same name: nothing is sent then.
        """
        deadline = time.monotonic() + deadline_seconds
        with self._condition:
            self._ending = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))
        left = deadline - time.monotonic()
        may_send = says_goodbye and not self._thread.is_alive() and left > 0
        arrived = may_send and self._beat(min(left, CALL_SECONDS), final=True)
        self._session.close()
        return arrived

    def _run(self) -> None:
        while not self._ending:
            started = time.monotonic()
            with self._condition:
                self._asked = False
            self._beat(CALL_SECONDS)
            self._wait(started)

    def _wait(self, started: float) -> None:
        """Until the interval has passed since `started`, or a heartbeat is asked for."""
        with self._condition:
            left = started + self._interval_seconds - time.monotonic()
            self._condition.wait_for(lambda: self._asked or self._ending, max(0.0, left))
            gap = started + MIN_GAP_SECONDS - time.monotonic()
            if gap > 0:
                self._condition.wait_for(lambda: self._ending, gap)

    def _beat(self, seconds: float, final: bool = False) -> bool:
        reply, error = guard.attempt("heartbeat", lambda: self._exchange(seconds, final))
        if error is not None and not isinstance(error, (requests.RequestException, ValueError)):
            guard.report("heartbeat", error)
        self._failures = 0 if reply is not None else self._failures + 1
        if reply is None:
            return False
        self._interval_seconds = min(max(reply.interval_seconds, MIN_INTERVAL_SECONDS), MAX_INTERVAL_SECONDS)
        for command in reply.commands:
            guard.contained("command")(self._accept)(command)
        return True

    def _exchange(self, seconds: float, final: bool) -> Reply:
        """One heartbeat and its reply; the results that it carried are told then.

        Raises:
            requests.RequestException: no answer, or not 200.
            ValueError: the answer is no reply.
        """
        with self._condition:
            self._sequence += 1
            sequence, results = self._sequence, tuple(self._results)
        body = encode(self._compose(sequence, final, results))
        with self._route.post(body, seconds) as response:
            if response.status_code != 200:
                raise requests.HTTPError(f"{response.status_code} {response.reason}", response=response)
            answer = b"".join(_limited(response, time.monotonic() + seconds))
        with self._condition:
            self._results = [result for result in self._results if result not in results]
        return decode_reply(answer)


def _limited(response: requests.Response, deadline: float) -> list[bytes]:
    pieces, size = [], 0
    for piece in response.iter_content(64 * 1024):
        size += len(piece)
        if size > MAX_REPLY_BYTES or time.monotonic() > deadline:
            raise ValueError("the reply is too large or too slow")
        pieces.append(piece)
    return pieces


def _session() -> requests.Session:
    """A session with the headers and certificates that the OTLP variables name for the exporters too."""
    session = requests.Session()
    session.headers["content-type"] = "application/json"
    session.headers.update(parse_env_headers(os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", ""), liberal=True))
    authority = os.environ.get("OTEL_EXPORTER_OTLP_CERTIFICATE")
    if authority:
        session.verify = authority
    certificate = os.environ.get("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE")
    key = os.environ.get("OTEL_EXPORTER_OTLP_CLIENT_KEY")
    if certificate:
        session.cert = (certificate, key) if key else certificate
    return session
