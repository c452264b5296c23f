"""The port of OTLP/gRPC: held for the role that serves it, shared with nobody, never a trouble for HTTP."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import requests

from arobust_otel.checked import Address
from arobust_otel.errors import ConfigurationError
from arobust_otel.master.run import run
from tests.master.running import Master, settings_for, until
from tests.receiver.serving import exporting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def port_of(master: Master) -> int:
    return int(master.info()["otlp_grpc"].rpartition(":")[2])


def serves(port: int) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, contextlib.suppress(grpc.RpcError):
        return exporting(channel, "metrics")(b"", timeout=5) == b""
    return False


@contextlib.contextmanager
def suspended(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_receiver_that_is_started_again_serves_the_same_port(tmp_path: Path) -> None:
    with Master(settings_for(tmp_path / "data")) as master:
        port = port_of(master)
        until("gRPC", lambda: serves(port))
        master.kill_role("receive")
        until("gRPC again", lambda: serves(port))
        assert port_of(master) == port


def test_grpc_lives_in_the_one_process_that_needs_it(tmp_path: Path) -> None:
    """Its threads do not survive a fork, and its import takes a quarter of a second."""
    with Master(settings_for(tmp_path / "data")) as master:
        port = port_of(master)
        until("gRPC", lambda: serves(port))
        roles = {**master.info()["roles"], "supervisor": master.info()["pid"]}
        loaded = {name for name, pid in roles.items() if "cygrpc" in Path(f"/proc/{pid}/maps").read_text()}
    assert loaded == {"receive"}


def test_ipv6_is_served(tmp_path: Path) -> None:
    with Master(settings_for(tmp_path / "data", otlp_grpc=Address("::1", 0))) as master:
        place = master.info()["otlp_grpc"]
        assert place.startswith("[::1]:")
        with grpc.insecure_channel(place) as channel:
            assert exporting(channel, "metrics")(b"", timeout=20) == b""


def test_a_second_master_on_the_same_port_is_refused_by_name_of_the_flag(tmp_path: Path) -> None:
    with Master(settings_for(tmp_path / "data")) as master:
        taken = Address("127.0.0.1", port_of(master))
        with pytest.raises(ConfigurationError, match=f"{taken.port} is taken.*--otlp-grpc HOST:PORT"):
            run(settings_for(tmp_path / "other", otlp_grpc=taken))
        with socket.socket() as greedy:
            greedy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                greedy.bind(taken)


def test_no_port_is_given_to_a_stranger_while_the_receiver_is_away(tmp_path: Path) -> None:
    with Master(settings_for(tmp_path / "data")) as master:
        port, pid = port_of(master), master.role("receive")
        os.kill(pid, signal.SIGSTOP)  # it can neither serve nor end: only the held socket speaks for it
        os.kill(pid, signal.SIGKILL)
        until("nobody listens", lambda: not serves(port) or master.role("receive") != pid)
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", port))
        until("gRPC again", lambda: serves(port))


def test_a_port_that_was_taken_meanwhile_leaves_http_alone_and_is_taken_back(tmp_path: Path) -> None:
    with Master(settings_for(tmp_path / "data")) as master:
        port, pid = port_of(master), master.role("receive")
        with socket.socket() as rude:
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suspended(master.info()["pid"]):  # nobody starts the next receiver before that
                os.kill(pid, signal.SIGKILL)
                until("the moment", lambda: _bound(rude, port))
            until("a new receiver", lambda: master.role("receive") != pid)
            assert requests.get(f"{master.url}/healthz", timeout=20).status_code == 200

            def state() -> str:
                status = master.query("/api/v1/status") or {}
                return str(status.get("receiver", {}).get("otlp_grpc", ""))

            until("its words", lambda: "cannot be bound" in state())
        until("gRPC again", lambda: serves(port))
        until("its words", lambda: state() == "ok")
    assert "choose with --otlp-grpc HOST:PORT" in master.errors


def _bound(rude: socket.socket, port: int) -> bool:
    try:
        rude.bind(("127.0.0.1", port))
        rude.listen(1)
    except OSError:
        return False
    return True


def test_others_are_not_served_without_token_and_tls(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"otlp_grpc.*set a token and a TLS certificate"):
        run(settings_for(tmp_path / "data", otlp_grpc=Address("0.0.0.0", 0)))
