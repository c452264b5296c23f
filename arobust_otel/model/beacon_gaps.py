"""What a beacon can and cannot tell: codes with plain words and the remedy.

The position in each table is a bit in the beacon, so rows are only ever added at the end.
"""

from __future__ import annotations

# What a rank's hooks have shown to work so far.
CAPABILITIES = (
    "optimizer_steps",
    "loader_steps",
    "backward",
    "checkpoint",
    "process_groups",
    "collective_counters",
    "device_counters",
    "loss",
    "exceptions",
    "crash_file",
    "watcher_stacks",
    "tracer_allowed",
)

# code -> (what is missing, what would restore it)
GAPS: dict[str, tuple[str, str]] = {
    "step_signal": (
        "no step signal: no optimizer of torch.optim has stepped in this rank",
        "use a torch.optim.Optimizer subclass that calls super().__init__()",
    ),
    "loader_signal": (
        "the data loader cannot be seen",
        "the installed torch has no DataLoader iterator that we know; tell us its version",
    ),
    "backward_signal": (
        "the backward pass cannot be seen",
        "the installed torch has no torch.autograd.backward that we know; tell us its version",
    ),
    "checkpoint_signal": (
        "checkpoint saves and loads cannot be seen",
        "the installed torch has no torch.save that we know; tell us its version",
    ),
    "group_signal": (
        "joining and leaving of process groups cannot be seen",
        "the installed torch has no torch.distributed.init_process_group that we know; tell us its version",
    ),
    "collective_counters": (
        "no collective counters: this torch has no flight recorder that we know",
        "use torch 2.9 or later; before 2.15 set TORCH_FR_BUFFER_SIZE=2000",
    ),
    "collective_recorder_off": (
        "no collective counters: the flight recorder is switched off",
        "set TORCH_FR_BUFFER_SIZE=2000 in the environment of the job",
    ),
    "device_counters": (
        "no collective counters of the device backend (NCCL)",
        "set TORCH_NCCL_TRACE_BUFFER_SIZE=2000 in the environment of the job",
    ),
    "group_names": (
        "process groups cannot be named: their counters are left out",
        "the installed torch keeps its process groups in a place that we do not know; tell us its version",
    ),
    "groups_cut": (
        "more process groups than the beacon has room for, or one with irregular ranks: some are left out",
        "nothing to be done in the job; verdicts use the groups that fit",
    ),
    "p2p": (
        "point-to-point sends and receives leave no counters",
        "nothing to be done in the job: stacks are used where a rank waits in send or recv",
    ),
    "crash_file": (
        "the stack of a fatal signal cannot be kept: no crash file, or another handler is set",
        "make the beacon folder writable, and leave faulthandler to us",
    ),
    "watcher": (
        "the watcher thread could not be started, or one of its tasks failed",
        "see the message on the rank's standard error",
    ),
    "hooks": (
        "a hook failed and was taken out",
        "see the message on the rank's standard error",
    ),
    "start_ticks": (
        "the start time of the process cannot be read",
        "make /proc readable in this container",
    ),
    "device_time": (
        "times of phases are those of enqueuing: work on the device is not timed",
        "nothing to be done in the job; slow ranks are judged by other evidence",
    ),
    "loss_signal": (
        "the loss cannot be seen: it is not what backward starts from",
        "call backward() on the scalar loss itself",
    ),
}
GAP_CODES = tuple(GAPS)


def to_mask(codes: tuple[str, ...], names: tuple[str, ...]) -> int:
    """Bits of `names` in the order of `codes`; a name that is not in the table is left out."""
    return sum(1 << index for index, code in enumerate(codes) if code in names)


def from_mask(codes: tuple[str, ...], mask: int) -> tuple[str, ...]:
    """Names of the bits that are set; bits of a later version are left out."""
    return tuple(code for index, code in enumerate(codes) if mask >> index & 1)
