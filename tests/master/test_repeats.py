"""Clients that repeat what was not answered, and a master that is killed: each batch is kept exactly once."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path

import grpc
import pytest
import requests

from arobust_otel.journal import Kind
from arobust_otel.model.wire_names import BATCH_ID_HEADER
from tests.master.running import Master, journal_of, settings_for, until
from tests.receiver.serving import exporting
from tests.receiver.test_http import metrics

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

CLIENTS = 8


class Client(threading.Thread):
    """Sends batch after batch, each until it is answered; every second client speaks gRPC."""

    def __init__(self, master: Master, number: int, stop: threading.Event) -> None:
        super().__init__(name=f"client-{number}")
        self.master, self.number, self.stop = master, number, stop
        self.answered: list[str] = []
        self.tries = 0

    def run(self) -> None:
        send = self._grpc if self.number % 2 else self._http
        while not self.stop.is_set():
            batch = f"{self.number:04x}{len(self.answered):028x}"
            while not send(batch):
                self.tries += 1
                self.stop.wait(0.02)
                if self.stop.is_set():
                    return
            self.answered.append(batch)

    def _http(self, batch: str) -> bool:
        headers = {"content-type": "application/x-protobuf", BATCH_ID_HEADER: batch}
        url = self.master.info().get("otlp_http", "http://127.0.0.1:1")
        try:
            answer = requests.post(f"{url}/v1/metrics", metrics(name=batch), headers=headers, timeout=5)
        except requests.RequestException:
            return False
        return answer.status_code == 200

    def _grpc(self, batch: str) -> bool:
        with grpc.insecure_channel(self.master.info().get("otlp_grpc", "127.0.0.1:1")) as channel:
            try:
                exporting(channel, "metrics")(
                    metrics(name=batch), metadata=((BATCH_ID_HEADER, batch),), timeout=5
                )
            except grpc.RpcError:
                return False
        return True


@pytest.mark.parametrize("whole", [False, True])
def test_every_batch_is_kept_once_whatever_is_killed(tmp_path: Path, whole: bool) -> None:
    chance = random.Random(4)
    master = Master(settings_for(tmp_path / "data")).start()
    stop = threading.Event()
    clients = [Client(master, number, stop) for number in range(CLIENTS)]
    try:
        for client in clients:
            client.start()
        for _ in range(3):
            seen = sum(len(client.answered) for client in clients)
            more = seen + CLIENTS + chance.randrange(20)
            until("answers", lambda more=more: sum(len(client.answered) for client in clients) > more)
            if whole:
                master.kill()
                master.ended()
                master.errors = ""
                master.start()
            else:
                master.kill_role("receive")
        seen = [len(client.answered) for client in clients]
        until("everybody again", lambda: all(len(c.answered) > n for c, n in zip(clients, seen, strict=True)))
    finally:
        stop.set()
        for client in clients:
            client.join(30)
        master.stop()
    kept = Counter(record.batch for record in journal_of(tmp_path / "data") if record.kind == Kind.REQUEST)
    assert max(kept.values()) == 1
    assert {batch for client in clients for batch in client.answered} <= set(kept)
    assert sum(client.tries for client in clients) > 0
