"""The table of causes: every verdict names one row of it, and a new cause is a new row.

`action` is the default recommendation; `severity` is what an alert carries: critical where the job stands,
dies or spoils its result, warning where it is slower or at risk, info where nobody needs to do anything.
Nothing here decides anything: rules do.
"""

from __future__ import annotations

from dataclasses import dataclass

CRITICAL, WARNING, INFO = "critical", "warning", "info"
SEVERITIES = (CRITICAL, WARNING, INFO)


@dataclass(frozen=True, slots=True)
class Cause:
    """One row: code, meaning in one sentence, default action kind, severity of its alerts."""

    code: str
    meaning: str
    action: str
    severity: str


CAUSES: tuple[Cause, ...] = (
    Cause("python_exception", "user code raised an exception that nobody caught", "escalate", CRITICAL),
    Cause(
        "process_crashed", "a fatal signal from inside: SEGV, BUS, FPE, ILL, ABRT", "restart_worker", CRITICAL
    ),
    Cause("process_killed", "SIGKILL or SIGTERM from outside the process", "restart_worker", CRITICAL),
    Cause(
        "process_exit",
        "the process ended with a non-zero code and no known reason",
        "restart_worker",
        CRITICAL,
    ),
    Cause(
        "early_exit", "the process ended with code 0 while its peers still needed it", "escalate", CRITICAL
    ),
    Cause("out_of_memory_host", "the kernel's out-of-memory killer ended the process", "escalate", CRITICAL),
    Cause("out_of_memory_device", "the accelerator's memory was exhausted", "escalate", CRITICAL),
    Cause(
        "process_stopped", "the process was stopped by a signal and not continued", "restart_worker", CRITICAL
    ),
    Cause(
        "hang_user_code",
        "the rank is blocked in user code while its peers wait for it",
        "restart_worker",
        CRITICAL,
    ),
    Cause(
        "hang_interpreter_lock",
        "a native call holds the interpreter lock without end",
        "restart_worker",
        CRITICAL,
    ),
    Cause("hang_device", "the accelerator stopped while its host ran ahead", "restart_node", CRITICAL),
    Cause("hang_collective", "all members entered a collective and none leaves it", "capture", CRITICAL),
    Cause(
        "init_hang",
        "the job does not get past rendezvous, group creation or its first step",
        "capture",
        CRITICAL,
    ),
    Cause("teardown_hang", "the job does not get past its own end", "capture", WARNING),
    Cause("rank_busy", "one rank holds the job and is working", "watch", INFO),
    Cause("collective_mismatch", "members of a group entered different collectives", "escalate", CRITICAL),
    Cause("deadlock", "groups wait for each other in opposite order", "escalate", CRITICAL),
    Cause("slow_compute", "one rank computes slower than its peers", "watch", WARNING),
    Cause("slow_input", "one rank waits longer for its input than its peers", "watch", WARNING),
    Cause("slow_communication", "one link is slower than the others", "watch", WARNING),
    Cause(
        "thermal_throttle", "an accelerator lowered its clocks because of heat", "cordon_after_job", WARNING
    ),
    Cause("power_cap", "an accelerator lowered its clocks because of a power limit", "watch", WARNING),
    Cause("host_contention", "other processes take the host's processors or memory", "watch", WARNING),
    Cause("workload_imbalance", "the work itself is uneven: do not evict", "none", INFO),
    Cause("device_lost", "an accelerator is no longer reachable", "evict_node", CRITICAL),
    Cause("device_error", "an accelerator reported an error", "restart_node", WARNING),
    Cause("memory_error", "uncorrectable memory errors", "evict_node", CRITICAL),
    Cause("link_error", "a link between accelerators reports errors", "restart_node", WARNING),
    Cause("pcie_downgrade", "a device runs with fewer or slower lanes", "cordon_after_job", WARNING),
    Cause("network_down", "a network port is down", "evict_node", CRITICAL),
    Cause("network_partition", "two groups of nodes cannot reach each other", "escalate", CRITICAL),
    Cause("node_lost", "a node is no longer reachable", "relaunch_worker", CRITICAL),
    Cause("zone_lost", "many nodes of one zone are no longer reachable", "escalate", CRITICAL),
    Cause("agent_lost", "the node's agent is silent: its ranks cannot be seen", "watch", WARNING),
    Cause("telemetry_gap", "a source of evidence is missing while the rank lives", "watch", WARNING),
    Cause("storage_stall", "shared storage does not answer", "escalate", CRITICAL),
    Cause("checkpoint_stall", "a checkpoint takes far longer than before", "watch", WARNING),
    Cause("disk_full", "a file system has no space left", "escalate", CRITICAL),
    Cause("nan_loss", "the loss is no longer finite", "rollback", CRITICAL),
    Cause("loss_spike", "the loss jumped far above its history", "watch", WARNING),
    Cause("silent_corruption", "replicas that must agree differ", "stop_job", CRITICAL),
    Cause("crash_loop", "the job restarts again and again without progress", "stop_job", CRITICAL),
    Cause("lemon_node", "a node takes part in far more failures than its peers", "cordon_after_job", WARNING),
    Cause("rollout_stalled", "a rollout replica produces nothing", "restart_worker", CRITICAL),
    Cause("service_down", "a service that the job depends on does not answer", "escalate", CRITICAL),
    Cause("software_error", "the same error on all ranks: code or configuration", "escalate", CRITICAL),
    Cause("unknown", "something is wrong and the evidence names no cause", "capture", CRITICAL),
)

BY_CODE: dict[str, Cause] = {cause.code: cause for cause in CAUSES}

ACTIONS: tuple[str, ...] = (
    "none",
    "watch",
    "capture",
    "restart_worker",
    "relaunch_worker",
    "restart_node",
    "cordon_after_job",
    "evict_node",
    "rollback",
    "stop_job",
    "escalate",
)
