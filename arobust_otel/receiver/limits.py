"""What a receiver takes on at most: sizes, connections, deadlines. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from arobust_otel.otlp.limits import MAX_BODY_BYTES


@dataclass(frozen=True, slots=True)
class ReceiverLimits:
    """Every bound of the receiver in one place.

    Clients export every 5 to 60 s: an idle connection is kept for longer than that, since a connection that
    the server closes costs the Python exporter its one immediate retry.
    """

    body_bytes: int = MAX_BODY_BYTES  # before and after inflating
    heartbeat_bytes: int = 4 * 1024 * 1024
    in_flight_bytes: int = 256 * 1024 * 1024  # bodies being received, over all connections
    connections: int = 2048
    header_bytes: int = 64 * 1024
    header_seconds: float = 30.0  # from the first byte of a request to the end of its header
    body_seconds: float = 60.0  # for the whole body
    body_idle_seconds: float = 15.0  # between two portions of it
    idle_seconds: int = 120  # between requests
    drain_bytes: int = (
        8 * 1024 * 1024
    )  # of a refused body that is read and thrown away, so that the answer arrives
    drain_seconds: float = 5.0
    inline_bytes: int = 256 * 1024  # larger bodies are checked in a thread
    grpc_calls: int = 1024  # Export calls in flight, over all connections
    grpc_reads: int = 32  # messages being read at one time: each may hold `body_bytes` before we see it
    grpc_streams: int = 1024  # calls at one time on one connection; gRPC counts ended ones for a moment, too
    grpc_metadata_bytes: int = 16 * 1024
    grpc_connection_seconds: float = 1800.0  # gRPC varies it by a tenth
    retry_after_seconds: int = 2  # Python's exporter gives up at once where this exceeds its own 10 s
