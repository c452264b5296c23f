/* A libnvidia-ml.so.1 for tests: the real pynvml calls it, and a control file says what it answers.
 *
 * FAKE_NVML names the file; without it the driver is not loaded. Lines of key and value:
 *   devices 2               how many there are
 *   init.error 9            what nvmlInit answers
 *   0.temperature 55        a value of device 0; a key that is missing is NVML_ERROR_NOT_SUPPORTED
 *   0.temperature.error 999 what this query of this device answers
 *   0.temperature.hang 1    this query does not come back while the line is there
 *   0.error 15              what every query of device 0 answers
 * The file is read at each call, so a test changes it while the library is in use.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long long u64;
enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, SMALL = 7, NOT_LOADED = 9 };
static int sessions;

static int text(const char *key, char *value, size_t size) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512], name[128], found[384];
    int is_there = 0;
    if (!file) return 0;
    while (!is_there && fgets(line, sizeof line, file))
        if (sscanf(line, "%127s %383[^\n]", name, found) == 2 && !strcmp(name, key)) {
            snprintf(value, size, "%s", found);
            is_there = 1;
        }
    fclose(file);
    return is_there;
}

static int number(const char *key, u64 *value) {
    char found[384];
    if (!text(key, found, sizeof found)) return 0;
    *value = strtoull(found, NULL, 10);
    return 1;
}

static int index_of(void *handle) { return (int)(size_t)handle - 1; }

/* What stands in the way of a query: nothing (0) or an error. Hangs where it is told to. */
static int refusal(void *handle, const char *query) {
    char key[160];
    u64 error;
    if (!sessions) return UNINITIALIZED;
    snprintf(key, sizeof key, "%d.%s.hang", index_of(handle), query);
    while (number(key, &error)) usleep(5000);
    snprintf(key, sizeof key, "%d.%s.error", index_of(handle), query);
    if (number(key, &error)) return (int)error;
    snprintf(key, sizeof key, "%d.error", index_of(handle));
    if (number(key, &error)) return (int)error;
    return number("error", &error) ? (int)error : SUCCESS;
}

static int ask(void *handle, const char *query, u64 *value) {
    char key[160];
    int error = refusal(handle, query);
    snprintf(key, sizeof key, "%d.%s", index_of(handle), query);
    return error ? error : number(key, value) ? SUCCESS : NOT_SUPPORTED;
}

static int ask_uint(void *handle, const char *query, unsigned *value) {
    u64 found = 0;
    int error = ask(handle, query, &found);
    if (!error) *value = (unsigned)found;
    return error;
}

static int ask_text(void *handle, const char *query, char *value, unsigned size) {
    char key[160];
    int error = refusal(handle, query);
    snprintf(key, sizeof key, "%d.%s", index_of(handle), query);
    return error ? error : text(key, value, size) ? SUCCESS : NOT_SUPPORTED;
}

int nvmlInitWithFlags(unsigned flags) {
    u64 value;
    if (!number("devices", &value)) return NOT_LOADED;
    if (number("init.error", &value)) return (int)value;
    sessions++;
    return SUCCESS;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return sessions ? (sessions--, SUCCESS) : UNINITIALIZED; }

int nvmlSystemGetDriverVersion(char *version, unsigned size) {
    return text("driver", version, size) ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    u64 value, error;
    if (number("error", &error)) return (int)error;
    if (!number("devices", &value)) return NOT_LOADED;
    *count = (unsigned)value;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    *handle = (void *)(size_t)(index + 1);
    return refusal(*handle, "handle");
}

int nvmlDeviceGetUUID(void *d, char *uuid, unsigned size) { return ask_text(d, "uuid", uuid, size); }
int nvmlDeviceGetName(void *d, char *name, unsigned size) { return ask_text(d, "name", name, size); }

struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };
int nvmlDeviceGetPciInfo_v3(void *d, struct pci *info) {
    memset(info, 0, sizeof *info);
    return ask_uint(d, "pci.bus", &info->bus);
}

struct utilization { unsigned gpu, memory; };
int nvmlDeviceGetUtilizationRates(void *d, struct utilization *u) {
    u->memory = 0;
    return ask_uint(d, "utilization", &u->gpu);
}

struct memory { u64 total, free, used; };
int nvmlDeviceGetMemoryInfo(void *d, struct memory *m) {
    int error = ask(d, "memory.total", &m->total);
    if (!error) error = ask(d, "memory.used", &m->used);
    m->free = m->total - m->used;
    return error;
}

int nvmlDeviceGetTemperature(void *d, unsigned sensor, unsigned *t) { return ask_uint(d, "temperature", t); }
int nvmlDeviceGetTemperatureThreshold(void *d, unsigned which, unsigned *t) {
    return ask_uint(d, which == 0 ? "temperature.shutdown" : which == 1 ? "temperature.slowdown" : "?", t);
}
int nvmlDeviceGetPowerUsage(void *d, unsigned *mw) { return ask_uint(d, "power", mw); }
int nvmlDeviceGetEnforcedPowerLimit(void *d, unsigned *mw) { return ask_uint(d, "power.limit", mw); }
int nvmlDeviceGetTotalEnergyConsumption(void *d, u64 *mj) { return ask(d, "energy", mj); }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *d, u64 *bits) { return ask(d, "throttle", bits); }

static const char *clock_name(unsigned type) {
    return type == 0 ? "clock.graphics" : type == 1 ? "clock.sm" : "clock.memory";
}
int nvmlDeviceGetClockInfo(void *d, unsigned type, unsigned *mhz) { return ask_uint(d, clock_name(type), mhz); }
int nvmlDeviceGetMaxClockInfo(void *d, unsigned type, unsigned *mhz) {
    char query[64];
    snprintf(query, sizeof query, "%s.max", clock_name(type));
    return ask_uint(d, query, mhz);
}

int nvmlDeviceGetTotalEccErrors(void *d, unsigned kind, unsigned counter, u64 *count) {
    char query[64];
    snprintf(query, sizeof query, "ecc.%s.%s", counter ? "life" : "now", kind ? "uncorrected" : "corrected");
    return ask(d, query, count);
}

int nvmlDeviceGetRemappedRows(void *d, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                              unsigned *failed) {
    int error = ask_uint(d, "rows.corrected", corrected);
    if (!error) error = ask_uint(d, "rows.uncorrected", uncorrected);
    if (!error) error = ask_uint(d, "rows.pending", pending);
    return error ? error : ask_uint(d, "rows.failed", failed);
}

int nvmlDeviceGetRetiredPages(void *d, unsigned cause, unsigned *count, u64 *addresses) {
    unsigned found = 0, i;
    int error = ask_uint(d, cause ? "pages.uncorrected" : "pages.corrected", &found);
    if (error) return error;
    if (!addresses && found) return *count = found, SMALL;
    for (i = 0; i < found; i++) addresses[i] = i;
    *count = found;
    return SUCCESS;
}
int nvmlDeviceGetRetiredPagesPendingStatus(void *d, unsigned *p) { return ask_uint(d, "pages.pending", p); }

int nvmlDeviceGetCurrPcieLinkGeneration(void *d, unsigned *v) { return ask_uint(d, "pcie.generation", v); }
int nvmlDeviceGetMaxPcieLinkGeneration(void *d, unsigned *v) { return ask_uint(d, "pcie.generation.max", v); }
int nvmlDeviceGetCurrPcieLinkWidth(void *d, unsigned *v) { return ask_uint(d, "pcie.width", v); }
int nvmlDeviceGetMaxPcieLinkWidth(void *d, unsigned *v) { return ask_uint(d, "pcie.width.max", v); }
int nvmlDeviceGetPcieReplayCounter(void *d, unsigned *v) { return ask_uint(d, "pcie.replays", v); }

int nvmlDeviceGetNvLinkState(void *d, unsigned link, unsigned *is_active) {
    unsigned links = 0, inactive = 0;
    int error = ask_uint(d, "nvlink.links", &links);
    if (error) return error;
    if (link >= links) return INVALID;
    ask_uint(d, "nvlink.inactive", &inactive);
    *is_active = link >= inactive;
    return SUCCESS;
}

struct field { unsigned id, scope; long long timestamp, latency; unsigned type; int result; u64 value; };
int nvmlDeviceGetFieldValues(void *d, int count, struct field *fields) {
    for (int i = 0; i < count; i++) {
        u64 value = 0;
        fields[i].result = fields[i].id == 82 ? ask(d, "temperature.memory", &value) : NOT_SUPPORTED;
        fields[i].value = value;
    }
    return SUCCESS;
}

/* 0.processes PID:BYTES PID:BYTES ... */
struct process { unsigned pid; u64 memory; unsigned gpu_instance, compute_instance; };
int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *count, struct process *processes) {
    char list[384], *word;
    unsigned found = 0;
    int error = ask_text(d, "processes", list, sizeof list);
    if (error) return error;
    for (word = strtok(list, " "); word; word = strtok(NULL, " ")) {
        unsigned pid;
        u64 bytes;
        if (sscanf(word, "%u:%llu", &pid, &bytes) != 2) continue;
        if (processes) {
            memset(&processes[found], 0, sizeof processes[found]);
            processes[found].pid = pid;
            processes[found].memory = bytes;
        }
        found++;
    }
    *count = found;
    return found && !processes ? SMALL : SUCCESS;
}
