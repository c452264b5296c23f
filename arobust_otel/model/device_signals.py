"""Names of accelerators, xpu_timer and the kernel's log; others import them from `signals`."""

from __future__ import annotations

from arobust_otel.model.signal_rows import ATTRIBUTE, COUNTER, EVENT, GAUGE, UPDOWN, define

# Accelerators (attribute hw.id: the device's UUID). Fractions are 0 to 1.
HW_UTILIZATION = define("hw.gpu.utilization", GAUGE, "1", "share of time some kernel ran on the device")
HW_MEMORY_USAGE = define("hw.gpu.memory.usage", UPDOWN, "By", "memory in use on the device")
HW_MEMORY_LIMIT = define("hw.gpu.memory.limit", UPDOWN, "By", "memory of the device")
HW_TEMPERATURE = define("hw.temperature", GAUGE, "Cel", "temperature, by hw.sensor_location")
HW_TEMPERATURE_LIMIT = define(
    "hw.temperature.limit", GAUGE, "Cel", "where the device slows down or ends itself, by hw.limit_type"
)
HW_POWER = define("hw.power", GAUGE, "W", "power drawn")
HW_ENERGY = define("hw.energy", COUNTER, "J", "energy used since the driver was loaded")
HW_ERRORS = define(
    "hw.errors", COUNTER, "{error}", "memory errors since the driver was loaded, by error.type"
)
HW_STATUS = define(
    "hw.status", UPDOWN, "{device}", "1 for the state that holds, 0 for the other, by hw.state"
)
ACCELERATOR_INFO = define(
    "arobust.accelerator.info", GAUGE, "{device}", "always 1; carries model, driver and PCI address"
)
ACCELERATOR_POWER_LIMIT = define("arobust.accelerator.power.limit", GAUGE, "W", "power limit in force")
ACCELERATOR_CLOCK = define(
    "arobust.accelerator.clock.frequency", GAUGE, "Hz", "current clock, by arobust.accelerator.clock"
)
ACCELERATOR_CLOCK_LIMIT = define(
    "arobust.accelerator.clock.limit", GAUGE, "Hz", "highest clock, by arobust.accelerator.clock"
)
ACCELERATOR_THROTTLE = define(
    "arobust.accelerator.throttle",
    GAUGE,
    "{reason}",
    "1 where clocks are lowered for this reason, else 0, by arobust.accelerator.throttle.reason",
)
ACCELERATOR_ERRORS_LIFETIME = define(
    "arobust.accelerator.errors.lifetime",
    COUNTER,
    "{error}",
    "memory errors of the device's life, by error.type",
)
ACCELERATOR_REMAPPED_ROWS = define(
    "arobust.accelerator.remapped_rows", GAUGE, "{row}", "memory rows replaced by spares, by error.type"
)
ACCELERATOR_RETIRED_PAGES = define(
    "arobust.accelerator.retired_pages", GAUGE, "{page}", "memory pages taken out of use, by error.type"
)
ACCELERATOR_REPAIR_PENDING = define(
    "arobust.accelerator.repair.pending", GAUGE, "{device}", "1 where a remap or retirement waits for a reset"
)
ACCELERATOR_REPAIR_FAILED = define(
    "arobust.accelerator.repair.failed", GAUGE, "{device}", "1 where a row could not be remapped"
)
PCIE_GENERATION = define(
    "arobust.accelerator.pcie.generation", GAUGE, "{generation}", "PCIe generation in use"
)
PCIE_GENERATION_LIMIT = define(
    "arobust.accelerator.pcie.generation.limit", GAUGE, "{generation}", "highest of device and slot"
)
PCIE_WIDTH = define("arobust.accelerator.pcie.width", GAUGE, "{lane}", "PCIe lanes in use")
PCIE_WIDTH_LIMIT = define(
    "arobust.accelerator.pcie.width.limit", GAUGE, "{lane}", "highest of device and slot"
)
PCIE_REPLAYS = define("arobust.accelerator.pcie.replays", COUNTER, "{replay}", "PCIe packets sent again")
NVLINK_LINKS = define("arobust.accelerator.nvlink.links", GAUGE, "{link}", "NVLink links, by hw.state")
ACCELERATOR_PROCESSES = define(
    "arobust.accelerator.processes",
    GAUGE,
    "{process}",
    "processes on the device, by arobust.accelerator.owner",
)
ACCELERATOR_RANK_MEMORY = define(
    "arobust.accelerator.rank.memory", GAUGE, "By", "memory of the device that a rank holds, by rank"
)

# xpu_timer: what a rank's kernels took, in windows of about 10 s (by rank, arobust.operation, level).
XPU_COLLECTIVE_MEAN = define("arobust.xpu_timer.collective.mean", GAUGE, "s", "mean duration of a collective")
XPU_COLLECTIVE_MAX = define(
    "arobust.xpu_timer.collective.max", GAUGE, "s", "longest duration of a collective"
)
XPU_COLLECTIVE_P99 = define("arobust.xpu_timer.collective.p99", GAUGE, "s", "99th percentile of its duration")
XPU_COLLECTIVE_MIN = define(
    "arobust.xpu_timer.collective.min", GAUGE, "s", "shortest duration of a collective"
)
XPU_COLLECTIVE_BANDWIDTH = define(
    "arobust.xpu_timer.collective.bandwidth", GAUGE, "By/s", "bus bandwidth of a collective"
)
XPU_MATMUL_MEAN = define("arobust.xpu_timer.matmul.mean", GAUGE, "s", "mean duration of a matrix kernel")
XPU_MATMUL_MAX = define("arobust.xpu_timer.matmul.max", GAUGE, "s", "longest duration of a matrix kernel")
XPU_MATMUL_P99 = define("arobust.xpu_timer.matmul.p99", GAUGE, "s", "99th percentile of its duration")
XPU_MATMUL_MIN = define("arobust.xpu_timer.matmul.min", GAUGE, "s", "shortest duration of a matrix kernel")
XPU_MATMUL_FLOPS = define(
    "arobust.xpu_timer.matmul.throughput", GAUGE, "{operation}/s", "floating-point operations per second"
)
XPU_HANG = define(
    "arobust.xpu_timer.hang", GAUGE, "{hang}", "1 where a launched kernel has not ended for 300 s: it waits"
)
XPU_DUMP_STARTED = define("arobust.xpu_timer.dump.started", GAUGE, "{dump}", "1 once xpu_timer dumps stacks")
XPU_DUMP_DURATION = define("arobust.xpu_timer.dump.duration", GAUGE, "s", "what dumping the stacks took")
XPU_POOL_QUEUE = define("arobust.xpu_timer.pool_queue.size", GAUGE, "{event}", "free timing events")
XPU_WORK_QUEUE = define("arobust.xpu_timer.work_queue.size", GAUGE, "{kernel}", "kernels launched, not ended")
XPU_GC = define("arobust.xpu_timer.gc.count", GAUGE, "{collection}", "garbage collections of Python")
XPU_DATA_LOADER = define("arobust.xpu_timer.data_loader.count", GAUGE, "{batch}", "calls of the data loader")
XPU_MEMORY_CALLS = define(
    "arobust.xpu_timer.memory.calls", COUNTER, "{call}", "memory calls, by arobust.operation"
)

# The kernel's log.
KERNEL_LOG_LOST = define(
    "arobust.kernel.log.lost",
    COUNTER,
    "{record}",
    "records of the kernel's log overwritten before they were read",
)

# Facts (events).
RANK_ACCELERATOR = define(
    "arobust.rank.accelerator", EVENT, "", "a rank was first seen on an accelerator: which one, and by whom"
)
ACCELERATOR_LOST = define(
    "arobust.accelerator.lost", EVENT, "", "an accelerator no longer answers, or fell off the bus"
)
ACCELERATOR_BACK = define("arobust.accelerator.back", EVENT, "", "an accelerator that was lost answers again")
KERNEL_XID = define("arobust.kernel.xid", EVENT, "", "the NVIDIA driver reported an error number (Xid)")
KERNEL_OOM_KILL = define("arobust.kernel.oom_kill", EVENT, "", "the kernel ended a process for memory")
KERNEL_FAULT = define(
    "arobust.kernel.fault", EVENT, "", "another line of the kernel's log about hardware, storage or network"
)
KERNEL_LOG_GAP = define(
    "arobust.kernel.log.gap", EVENT, "", "records of the kernel's log were overwritten before they were read"
)

# Attributes.
HW_ID = define("hw.id", ATTRIBUTE, "", "UUID of an accelerator")
HW_TYPE = define("hw.type", ATTRIBUTE, "", "gpu")
HW_NAME = define("hw.name", ATTRIBUTE, "", "name of the device as its driver says it")
HW_VENDOR = define("hw.vendor", ATTRIBUTE, "", "maker of the device")
HW_DRIVER_VERSION = define("hw.driver_version", ATTRIBUTE, "", "version of its driver")
HW_STATE = define("hw.state", ATTRIBUTE, "", "ok or failed; active or inactive for links")
HW_SENSOR = define("hw.sensor_location", ATTRIBUTE, "", "gpu or memory")
HW_LIMIT_TYPE = define("hw.limit_type", ATTRIBUTE, "", "throttled: clocks go down; critical: it ends itself")
ERROR_TYPE = define("error.type", ATTRIBUTE, "", "corrected or uncorrected")
ACCELERATOR_INDEX = define("arobust.accelerator.index", ATTRIBUTE, "", "number of the device on its node")
ACCELERATOR_PCI = define("arobust.accelerator.pci_address", ATTRIBUTE, "", "PCI address, 0000:3b:00.0")
CLOCK_NAME = define("arobust.accelerator.clock", ATTRIBUTE, "", "sm, memory or graphics")
THROTTLE_REASON = define(
    "arobust.accelerator.throttle.reason", ATTRIBUTE, "", "why clocks are lowered, for example hw_thermal"
)
PROCESS_OWNER = define("arobust.accelerator.owner", ATTRIBUTE, "", "rank: of this job; other: anybody else")
SOURCE = define("arobust.source", ATTRIBUTE, "", "who saw it: nvml or kernel")
XID_CODE = define("arobust.xid.code", ATTRIBUTE, "", "number of the Xid")
XID_MEANING = define("arobust.xid.meaning", ATTRIBUTE, "", "what the number means")
XID_ADVICE = define(
    "arobust.xid.advice", ATTRIBUTE, "", "ignore, restart_app, reset, evict, ...: model/xids.py"
)
KERNEL_FAULT_KIND = define(
    "arobust.kernel.fault.kind", ATTRIBUTE, "", "io_error, hardware_error, link_down, ..."
)
KERNEL_FACILITY = define(
    "arobust.kernel.facility", ATTRIBUTE, "", "kern: the kernel's own; user: written by a process of root"
)
KERNEL_SEQUENCE = define(
    "arobust.kernel.sequence", ATTRIBUTE, "", "number of the record since the machine started"
)
KERNEL_TASK = define("arobust.kernel.task", ATTRIBUTE, "", "name of the process that the kernel names")
LOST_COUNT = define("arobust.lost", ATTRIBUTE, "", "how many records were lost")
OPERATION = define("arobust.operation", ATTRIBUTE, "", "AllReduce, Matmul, cudaMemcpyAsync, ...")
ALGORITHM = define("arobust.xpu_timer.algorithm", ATTRIBUTE, "", "algorithm of a collective, RING_LL")
DTYPE = define(
    "arobust.xpu_timer.dtype", ATTRIBUTE, "", "type of its numbers; that of the series' first event"
)
TRANSPORT = define("arobust.xpu_timer.transport", ATTRIBUTE, "", "IntraNode or InterNode; of the first event")
LEVEL = define("arobust.xpu_timer.level", ATTRIBUTE, "", "bucket of throughput: a slower kernel changes it")
SMALL = define(
    "arobust.xpu_timer.small", ATTRIBUTE, "", "true where the payload is at most 1 KiB; of the first event"
)
COPY_KIND = define("arobust.xpu_timer.kind", ATTRIBUTE, "", "H2H, H2D, D2H or D2D; of the first event")
POD_NAME = define("k8s.pod.name", ATTRIBUTE, "", "the pod, where the source said it")
