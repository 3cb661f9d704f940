/* A false libnvidia-ml.so.1. Its GPUs and their processes stand in the text file $FALSE_NVML, which is read anew with every question:

       gpu UUID TOTAL_MIB USED_MIB      a GPU
       mig UUID TOTAL_MIB USED_MIB      an instance of the GPU above: it is divided
       busy PERCENT                     how much what is above works; without it the driver does not say
       proc PID MIB                     a process that computes on what is above; MIB -1: not known
       lost                             a GPU that does not answer
       old                              an early driver: no nvmlDeviceGetMemoryInfo_v2
       down                             there is no driver: nothing answers
       hang                             the driver never answers

   The signatures are those of NVIDIA's nvml.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } Process;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;
typedef struct { char uuid[96]; unsigned long long total, used; int parent, lost, busy; unsigned count; Process processes[200]; } Device;

enum { OK, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, NO_DRIVER = 9, IS_LOST = 15 };

static Device devices[128];
static int count, is_old;

static int load(void) {
    char line[512], uuid[96];
    long long total, used, pid;
    int last = -1, whole = -1;
    FILE *file = fopen(getenv("FALSE_NVML") ? getenv("FALSE_NVML") : "", "r");
    if (!file) return NO_DRIVER;
    count = is_old = 0;
    memset(devices, 0, sizeof devices);
    while (fgets(line, sizeof line, file)) {
        int is_gpu = sscanf(line, "gpu %95s %lld %lld", uuid, &total, &used) == 3;
        if (is_gpu || sscanf(line, "mig %95s %lld %lld", uuid, &total, &used) == 3) {
            last = count++;
            strcpy(devices[last].uuid, uuid);
            devices[last].total = total << 20;
            devices[last].used = used << 20;
            devices[last].parent = is_gpu ? -1 : whole;
            if (is_gpu) whole = last;
        } else if (sscanf(line, "proc %lld %lld", &pid, &used) == 2 && last >= 0) {
            Process *process = &devices[last].processes[devices[last].count++];
            process->pid = pid;
            process->used = used < 0 ? ~0ull : (unsigned long long)used << 20;
            process->gi = process->ci = ~0u;
        } else if (sscanf(line, "busy %lld", &used) == 1 && last >= 0) devices[last].busy = used + 1;
        else if (!strncmp(line, "lost", 4)) {
            whole = last = count++;
            devices[last].parent = -1;
            devices[last].lost = 1;
        } else if (!strncmp(line, "old", 3)) is_old = 1;
        else if (!strncmp(line, "hang", 4)) pause();
        else if (!strncmp(line, "down", 4)) { fclose(file); return NO_DRIVER; }
    }
    fclose(file);
    return OK;
}

/* A handle is the place of the device, from 1 on. */
static Device *at(void *handle) { load(); return &devices[(size_t)handle - 1]; }

static int find(int parent, unsigned number, void **handle) {
    for (int i = 0; i < count; i++)
        if (devices[i].parent == parent && !number--) { *handle = (void *)(size_t)(i + 1); return OK; }
    return NOT_FOUND;
}

int nvmlInit_v2(void) { return load(); }
int nvmlShutdown(void) { return OK; }

const char *nvmlErrorString(int code) {
    return code == NO_DRIVER ? "Driver Not Loaded" : code == IS_LOST ? "GPU is lost" : code == NOT_FOUND ? "Not Found" : "Not Supported";
}

int nvmlDeviceGetCount_v2(unsigned *number) {
    *number = 0;
    for (int i = 0; i < count; i++) *number += devices[i].parent < 0;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned number, void **handle) { return find(-1, number, handle) ? INVALID : OK; }

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    load();
    for (int i = 0; i < count; i++)
        if (!devices[i].lost && !strcmp(devices[i].uuid, uuid)) { *handle = (void *)(size_t)(i + 1); return OK; }
    return NOT_FOUND;
}

int nvmlDeviceGetUtilizationRates(void *handle, unsigned *percent) {
    percent[0] = at(handle)->busy - 1, percent[1] = 0;
    return at(handle)->busy ? OK : NOT_SUPPORTED;
}

int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) {
    if (at(handle)->lost) return IS_LOST;
    snprintf(text, size, "%s", at(handle)->uuid);
    return OK;
}

int nvmlDeviceGetName(void *handle, char *text, unsigned size) { snprintf(text, size, "False GPU"); return at(handle)->lost ? IS_LOST : OK; }

int nvmlDeviceGetMigMode(void *handle, unsigned *now, unsigned *pending) {
    void *first;
    *now = *pending = !at(handle)->lost && !find((int)(size_t)handle - 1, 0, &first);
    return at(handle)->lost ? IS_LOST : *now ? OK : NOT_SUPPORTED;
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *number) { *number = 7; return OK; }

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned number, void **instance) {
    load();
    return find((int)(size_t)handle - 1, number, instance);
}

int nvmlDeviceGetMemoryInfo(void *handle, unsigned long long *sizes) {
    Device *device = at(handle);
    /* What the driver keeps for itself counts as used here. */
    sizes[0] = device->total, sizes[2] = device->used + (is_old ? 0 : 600ull << 20), sizes[1] = sizes[0] - sizes[2];
    return OK;
}

int nvmlDeviceGetMemoryInfo_v2(void *handle, MemoryV2 *memory) {
    Device *device = at(handle);
    if (is_old || memory->version != (sizeof *memory | 2 << 24)) return INVALID;
    memory->total = device->total, memory->reserved = 600ull << 20, memory->used = device->used;
    memory->free = memory->total - memory->used - memory->reserved;
    return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *number, Process *processes) {
    Device *device = at(handle);
    unsigned room = *number;
    *number = device->count;
    if (room < device->count) return TOO_SMALL;
    memcpy(processes, device->processes, device->count * sizeof *processes);
    return OK;
}
