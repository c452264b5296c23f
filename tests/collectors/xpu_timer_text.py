"""What an xpu_timer serves, in its true form: gauges with "# TYPE" only, and its exposer's own families."""

from __future__ import annotations

COLLECTIVE = {
    "AVG_LATENCY": 740.5, "MAX_LATENCY": 901, "P99_LATENCY": 772, "MIN_LATENCY": 655, "BANDWIDTH": 45.5
}  # fmt: skip
MATMUL = {"AVG_LATENCY": 91.25, "MAX_LATENCY": 120, "P99_LATENCY": 118, "MIN_LATENCY": 88, "FLOPS": 5.25}
COMMON = {
    "HANG": 0, "START_DUMP": 0, "END_DUMP": 0, "POOL_QUEUE_SIZE": 1024, "WORK_QUEUE_SIZE": 3, "GC_COUNT": 2,
    "DATA_LOADER_COUNT": 17,
}  # fmt: skip
EXPOSER = """\
# HELP exposer_transferred_bytes_total Transferred bytes to metrics services
# TYPE exposer_transferred_bytes_total counter
exposer_transferred_bytes_total 15820
# HELP exposer_request_latencies Latencies of serving scrape requests, in microseconds
# TYPE exposer_request_latencies summary
exposer_request_latencies_count 3
exposer_request_latencies_sum 892
exposer_request_latencies{quantile="0.5"} 290
"""


def labels(rank: int, pod: str = "NOT_SET", **extra: str) -> str:
    values = {
        "ip": "NOT_SET", "job_name": "NOT_SET", "local_rank": str(rank % 8), "pod_name": pod,
        "rank": str(rank), **extra,
    }  # fmt: skip
    return ",".join(f'{name}="{value}"' for name, value in sorted(values.items()))


def exposition(
    ranks: int = 2, *, common: bool = True, hang: tuple[int, ...] = (), pod: str = "NOT_SET"
) -> str:
    """All 18 families of `ranks` ranks; without `common` as before the first 50,000 timed events."""
    collective = {
        "algorithm": "RING_LL", "dtype": "fp16", "level": "2", "operation": "AllGather", "small": "0",
        "transport": "IntraNode",
    }  # fmt: skip
    matmul = {"dtype": "bf16", "level": "3", "operation": "Matmul"}
    memory = {"kind": "H2D", "operation": "cudaMemcpyAsync"}
    families = {f"COLL_KERNEL_{suffix}": (value, collective) for suffix, value in COLLECTIVE.items()}
    families |= {f"MM_KERNEL_{suffix}": (value, matmul) for suffix, value in MATMUL.items()}
    if common:
        families |= {f"COMMON_{suffix}": (value, {}) for suffix, value in COMMON.items()}
    families["MEMORY_COUNTER"] = (128, memory)
    text = EXPOSER
    for family, (value, extra) in families.items():
        text += f"# TYPE XPU_TIMER_{family} gauge\n"
        for rank in range(ranks):
            shown = 1 if family == "COMMON_HANG" and rank in hang else value
            text += f"XPU_TIMER_{family}{{{labels(rank, pod, **extra)}}} {shown}\n"
    return text
