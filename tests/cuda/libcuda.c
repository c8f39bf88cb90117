/* A CUDA driver for tests on machines without a GPU: one device that has memory and copies.
 *
 * It loads kernels and runs none, so programs start, compile kernels, upload, and share memory
 * between processes, and what they compute is undefined. `tests/src/stand_in.rs` compiles it as
 * libcuda.so.1.
 *
 * Device memory is a memfd for each allocation, which stays open as long as the allocation lives.
 * So the memory in use is what the descriptors of all processes say, and that of a killed process
 * is free, as on a GPU.
 *
 * | variable | content |
 * | --- | --- |
 * | STAND_IN_NAME | the device: processes with the same name share one. Part of the memfds' names |
 * | STAND_IN_MIB | its memory; 1024 by default |
 * | STAND_IN_DEVICES | the number of devices; 1 by default |
 * | STAND_IN_INIT | what cuInit returns; 0 by default |
 * | STAND_IN_COPY_MS | how long an upload takes; 0 by default |
 * | STAND_IN_CONTEXT | what creating a context returns; 0 by default |
 * | STAND_IN_MODULE | what loading compiled kernels returns; 0 by default |
 * | STAND_IN_KERNEL_MS | how long the start of a kernel takes; 0 by default |
 * | STAND_IN_END_MS | how long the driver takes when the process ends; 0 by default |
 * | STAND_IN_FAULT | a file. While it exists, kernels fail, and after one that did, the process cannot use the device any more |
 * | STAND_IN_READS | what is read from the device: `zero`, or `count`, the number of reads so far |
 * | STAND_IN_COMPILED | flags for its compilation: `-DTOO_OLD` leaves functions of newer drivers out |
 * | STAND_IN_LOG | a file to which copies and starts of graphs are written, a line each |
 * | CUDA_VISIBLE_DEVICES | the numbers of the devices that the process sees, as on a GPU |
 * | STAND_IN_WITHOUT_VMM | if set, memory cannot be exported as a descriptor |
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef int Result;
typedef uint64_t Pointer;
#define API __attribute__((visibility("default"))) Result
enum {
    OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, DEINITIALIZED = 4, DEVICE_UNAVAILABLE = 46, NO_DEVICE = 100, INVALID_DEVICE = 101,
    NO_BINARY_FOR_GPU = 209, ILLEGAL_ADDRESS = 700, NOT_SUPPORTED = 801, STREAM_CAPTURE_UNSUPPORTED = 900
};

static uint64_t number(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

/* Appends a line to the log. */
static void write_log(const char *what, size_t number) {
    const char *path = getenv("STAND_IN_LOG");
    int file = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (file < 0) return;
    dprintf(file, "%s %zu\n", what, number);
    close(file);
}

/* --- the device --- */

static uint64_t capacity(void) { return number("STAND_IN_MIB", 1024) << 20; }

static void memory_name(char *name, size_t len) {
    const char *device = getenv("STAND_IN_NAME");
    snprintf(name, len, "stand-in-%s", device ? device : "gpu");
}

/* Adds up the device's memfds that processes have open, each once. */
static uint64_t used(void) {
    char name[100], wanted[120];
    memory_name(name, sizeof name);
    snprintf(wanted, sizeof wanted, "/memfd:%s (deleted)", name);
    static ino_t seen[65536];
    static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;
    size_t count = 0;
    pthread_mutex_lock(&counting);
    uint64_t sum = 0;
    DIR *processes = opendir("/proc");
    for (struct dirent *process; processes && (process = readdir(processes));) {
        if (process->d_name[0] < '0' || process->d_name[0] > '9') continue;
        char folder[300];
        snprintf(folder, sizeof folder, "/proc/%s/fd", process->d_name);
        DIR *open_files = opendir(folder);
        for (struct dirent *file; open_files && (file = readdir(open_files));) {
            char target[200] = {0};
            struct stat status;
            if (readlinkat(dirfd(open_files), file->d_name, target, sizeof target - 1) < 0) continue;
            if (strcmp(target, wanted) || fstatat(dirfd(open_files), file->d_name, &status, 0)) continue;
            size_t at = 0;
            while (at < count && seen[at] != status.st_ino) at++;
            if (at < count || count == sizeof seen / sizeof *seen) continue;
            seen[count++] = status.st_ino;
            sum += status.st_size;
        }
        if (open_files) closedir(open_files);
    }
    if (processes) closedir(processes);
    pthread_mutex_unlock(&counting);
    return sum;
}

/* The devices that this process sees. Returns their number. */
static int visible(int *devices) {
    int all = number("STAND_IN_DEVICES", 1), count = 0;
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    if (!text) {
        for (; count < all; count++) devices[count] = count;
        return count;
    }
    /* Those before the first number that is not a device. */
    for (char *end; *text; text = *end ? end + 1 : end) {
        long device = strtol(text, &end, 10);
        if (end == text || device < 0 || device >= all) break;
        devices[count++] = device;
    }
    return count;
}

API cuInit(unsigned flags) { return number("STAND_IN_INIT", OK); }
API cuDriverGetVersion(int *version) { *version = 13000; return OK; }
API cuDeviceGetCount(int *count) { int devices[64]; *count = visible(devices); return OK; }
API cuDeviceGet(int *device, int index) {
    int devices[64];
    if (index < 0 || index >= visible(devices)) return INVALID_DEVICE;
    *device = devices[index];
    return OK;
}
API cuDeviceGetName(char *name, int len, int device) { snprintf(name, len, "Stand-in GPU"); return OK; }
API cuDeviceGetPCIBusId(char *id, int len, int device) { snprintf(id, len, "0000:%02x:00.0", device + 1); return OK; }
API cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = capacity(); return OK; }
API cuDeviceGetUuid_v2(char *uuid, int device) { memset(uuid, device + 1, 16); return OK; }
API cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 1: *value = 1024; break;               /* threads of a block */
    case 2: case 3: *value = 1024; break;       /* block dimensions */
    case 4: *value = 64; break;
    case 5: *value = 2147483647; break;         /* grid dimensions */
    case 6: case 7: *value = 65535; break;
    case 10: *value = 32; break;                /* warp */
    case 16: *value = 132; break;               /* multiprocessors */
    case 75: *value = 9; break;                 /* compute capability 9.0 */
    case 76: *value = 0; break;
    case 97: *value = 232448; break;            /* shared memory of a block */
    case 102: case 103: *value = !getenv("STAND_IN_WITHOUT_VMM"); break;
    default: *value = 1;
    }
    return OK;
}
API cuGetErrorName(Result error, const char **name) {
    switch (error) {
    case OK: *name = "CUDA_SUCCESS"; break;
    case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; break;
    case INVALID_DEVICE: *name = "CUDA_ERROR_INVALID_DEVICE"; break;
    case NOT_SUPPORTED: *name = "CUDA_ERROR_NOT_SUPPORTED"; break;
    case DEINITIALIZED: *name = "CUDA_ERROR_DEINITIALIZED"; break;
    case DEVICE_UNAVAILABLE: *name = "CUDA_ERROR_DEVICE_UNAVAILABLE"; break;
    case NO_BINARY_FOR_GPU: *name = "CUDA_ERROR_NO_BINARY_FOR_GPU"; break;
    case ILLEGAL_ADDRESS: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
    case STREAM_CAPTURE_UNSUPPORTED: *name = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"; break;
    default: *name = "CUDA_ERROR_UNKNOWN";
    }
    return OK;
}
API cuGetErrorString(Result error, const char **text) { return cuGetErrorName(error, text); }

/* --- contexts, streams and events: one of each, which has always finished --- */

static int object;

/* Whether this process ends. Like NVIDIA's driver, this one then refuses everything, also to threads that still run, and takes
 * some time. */
static int has_ended;
__attribute__((destructor)) static void end(void) {
    has_ended = 1;
    usleep(1000 * number("STAND_IN_END_MS", 0));
}

/* Whether a kernel has failed in this process. Then its context is of no use. */
static int has_failed;
static Result health(void) { return has_ended ? DEINITIALIZED : has_failed ? ILLEGAL_ADDRESS : OK; }

/* A recording: the kernels that are started are counted, and everything else is refused. */
static int is_recording;
static size_t recorded;
static Result outside(void) { return is_recording ? STREAM_CAPTURE_UNSUPPORTED : health(); }

API cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = &object;
    return number("STAND_IN_CONTEXT", OK);
}
API cuDevicePrimaryCtxRelease_v2(int device) { return OK; }
API cuCtxSetCurrent(void *context) { return health(); }
API cuCtxGetCurrent(void **context) { *context = &object; return OK; }
API cuCtxSynchronize(void) { return outside(); }
API cuCtxGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return OK; }
API cuStreamCreate(void **stream, unsigned flags) { *stream = &object; return OK; }
API cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) { *stream = &object; return OK; }
API cuStreamDestroy_v2(void *stream) { return health(); }
API cuStreamSynchronize(void *stream) { return outside(); }
API cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return health(); }
API cuEventCreate(void **event, unsigned flags) { *event = &object; return health(); }
API cuEventDestroy_v2(void *event) { return health(); }
API cuEventRecord(void *event, void *stream) { return health(); }
API cuEventQuery(void *event) { return health(); }
API cuEventSynchronize(void *event) { return outside(); }
API cuEventElapsedTime(float *ms, void *start, void *end) { *ms = 1; return OK; }
API cuEventElapsedTime_v2(float *ms, void *start, void *end) { *ms = 1; return OK; }

/* --- kernels: loaded, and never run --- */

API cuModuleLoadData(void **module, const void *image) {
    *module = &object;
    return image ? number("STAND_IN_MODULE", OK) : INVALID_VALUE;
}
API cuModuleGetFunction(void **function, void *module, const char *name) { *function = &object; return OK; }
API cuFuncSetAttribute(void *function, int attribute, int value) { return OK; }
static Result launch(void) {
    const char *fault = getenv("STAND_IN_FAULT");
    usleep(1000 * number("STAND_IN_KERNEL_MS", 0));
    recorded += is_recording;
    if (fault && !access(fault, F_OK)) has_failed = 1;
    return health();
}
API cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **extra) { return launch(); }
API cuLaunchKernelEx(void *config, void *function, void **arguments, void **extra) { return launch(); }
API cuTensorMapEncodeTiled(void *map, ...) { return OK; }

/* --- graphs: the number of their kernels --- */

API cuStreamBeginCapture_v2(void *stream, int mode) {
    if (is_recording) return INVALID_VALUE;
    is_recording = 1;
    recorded = 0;
    return OK;
}
API cuStreamEndCapture(void *stream, void **graph) {
    if (!is_recording) return INVALID_VALUE;
    is_recording = 0;
    *graph = malloc(sizeof(size_t));
    *(size_t *)*graph = recorded;
    return OK;
}
API cuGraphGetNodes(void *graph, void **nodes, size_t *count) {
    for (size_t at = 0; nodes && at < *count; at++) nodes[at] = &object;
    *count = *(size_t *)graph;
    return OK;
}
API cuGraphNodeGetType(void *node, int *type) { *type = 0; return OK; } /* a kernel */
API cuGraphInstantiateWithFlags(void **executable, void *graph, uint64_t flags) {
    *executable = malloc(sizeof(size_t));
    *(size_t *)*executable = *(size_t *)graph;
    return OK;
}
API cuGraphDestroy(void *graph) { free(graph); return OK; }
API cuGraphExecDestroy(void *executable) { free(executable); return OK; }
API cuGraphUpload(void *executable, void *stream) { return OK; }
API cuGraphLaunch(void *executable, void *stream) {
    write_log("graph", *(size_t *)executable);
    return outside();
}

/* --- memory --- */

/* An address range of the device: a mapping of an allocation's memfd. `fd` is -1 where nothing is
 * mapped. */
static struct Range { Pointer start; size_t len; int fd; int can_write; } ranges[65536];
static size_t range_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct Range *range_of(Pointer pointer) {
    for (size_t at = 0; at < range_count; at++)
        if (ranges[at].len && ranges[at].start <= pointer && pointer < ranges[at].start + ranges[at].len)
            return &ranges[at];
    return NULL;
}

static struct Range *add_range(Pointer start, size_t len, int fd, int can_write) {
    size_t at = 0;
    while (at < range_count && ranges[at].len) at++;
    if (at == sizeof ranges / sizeof *ranges) return NULL;
    if (at == range_count) range_count++;
    ranges[at] = (struct Range){start, len, fd, can_write};
    return &ranges[at];
}

/* A new memfd on the device, or -1 if its memory is used up. */
static int allocate(size_t len) {
    char name[100];
    memory_name(name, sizeof name);
    if (!len || used() + len > capacity()) return -1;
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, len)) { close(fd); fd = -1; }
    return fd;
}

API cuMemGetInfo_v2(size_t *available, size_t *total) {
    uint64_t in_use = used();
    *total = capacity();
    *available = *total > in_use ? *total - in_use : 0;
    return OK;
}

API cuMemAlloc_v2(Pointer *pointer, size_t len) {
    if (outside()) return outside();
    int fd = allocate(len);
    if (fd < 0) return OUT_OF_MEMORY;
    void *mapped = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) { close(fd); return OUT_OF_MEMORY; }
    pthread_mutex_lock(&lock);
    struct Range *range = add_range((Pointer)mapped, len, fd, 1);
    pthread_mutex_unlock(&lock);
    *pointer = (Pointer)mapped;
    return range ? OK : OUT_OF_MEMORY;
}

API cuMemFree_v2(Pointer pointer) {
    pthread_mutex_lock(&lock);
    struct Range *range = range_of(pointer);
    Result result = INVALID_VALUE;
    if (range && range->start == pointer) {
        munmap((void *)pointer, range->len);
        close(range->fd);
        range->len = 0;
        result = OK;
    }
    pthread_mutex_unlock(&lock);
    return result;
}
API cuMemAllocAsync(Pointer *pointer, size_t len, void *stream) { return cuMemAlloc_v2(pointer, len); }
API cuMemFreeAsync(Pointer pointer, void *stream) { return cuMemFree_v2(pointer); }

/* Page-locked memory. */
static struct Locked { char *start; size_t len; } locked[4096];
static int is_locked(const void *pointer, size_t len) {
    int found = 0;
    pthread_mutex_lock(&lock);
    for (size_t at = 0; at < sizeof locked / sizeof *locked; at++)
        found |= locked[at].len && locked[at].start <= (char *)pointer && (char *)pointer + len <= locked[at].start + locked[at].len;
    pthread_mutex_unlock(&lock);
    return found;
}
API cuMemAllocHost_v2(void **pointer, size_t len) {
    if (outside()) return outside();
    if (posix_memalign(pointer, 4096, len)) return OUT_OF_MEMORY;
    pthread_mutex_lock(&lock);
    size_t at = 0;
    while (at < sizeof locked / sizeof *locked && locked[at].len) at++;
    if (at < sizeof locked / sizeof *locked) locked[at] = (struct Locked){*pointer, len};
    pthread_mutex_unlock(&lock);
    return OK;
}
API cuMemFreeHost(void *pointer) {
    pthread_mutex_lock(&lock);
    for (size_t at = 0; at < sizeof locked / sizeof *locked; at++)
        if (locked[at].start == pointer) locked[at].len = 0;
    pthread_mutex_unlock(&lock);
    free(pointer);
    return OK;
}
API cuMemHostRegister_v2(void *pointer, size_t len, unsigned flags) { return OK; }
API cuMemHostUnregister(void *pointer) { return OK; }

/* --- virtual memory management: allocations apart from their addresses --- */

struct Location { int type, id; };
struct Properties { int type, handle_types; struct Location location; };
struct Access { struct Location location; int flags; };
enum { POSIX_DESCRIPTOR = 1, READ_ONLY = 1, READ_WRITE = 3, GRANULARITY = 2 << 20 };

API cuMemGetAllocationGranularity(size_t *bytes, const struct Properties *properties, int option) {
    *bytes = GRANULARITY;
    return OK;
}
/* A handle is a descriptor plus one. Memory of another process is marked: as on a GPU, it cannot be
 * exported. */
#define IMPORTED (1ull << 32)
static int descriptor(uint64_t handle) { return (int)((handle & (IMPORTED - 1)) - 1); }
#ifndef TOO_OLD
API cuMemCreate(uint64_t *handle, size_t len, const struct Properties *properties, uint64_t flags) {
    if (getenv("STAND_IN_WITHOUT_VMM")) return NOT_SUPPORTED;
    if (len % GRANULARITY || properties->handle_types != POSIX_DESCRIPTOR) return INVALID_VALUE;
    int fd = allocate(len);
    if (fd < 0) return OUT_OF_MEMORY;
    *handle = fd + 1;
    return OK;
}
#endif
API cuMemRelease(uint64_t handle) { return close(descriptor(handle)) ? INVALID_VALUE : OK; }
API cuMemExportToShareableHandle(void *out, uint64_t handle, int type, uint64_t flags) {
    if (handle & IMPORTED) return INVALID_VALUE;
    int fd = fcntl(descriptor(handle), F_DUPFD_CLOEXEC, 0);
    *(int *)out = fd;
    return fd < 0 ? INVALID_VALUE : OK;
}
API cuMemImportFromShareableHandle(uint64_t *handle, void *descriptor, int type) {
    char name[100], wanted[120], path[64], target[200] = {0};
    memory_name(name, sizeof name);
    snprintf(wanted, sizeof wanted, "/memfd:%s (deleted)", name);
    snprintf(path, sizeof path, "/proc/self/fd/%d", (int)(intptr_t)descriptor);
    if (readlink(path, target, sizeof target - 1) < 0 || strcmp(target, wanted)) return INVALID_VALUE;
    int fd = fcntl((int)(intptr_t)descriptor, F_DUPFD_CLOEXEC, 0);
    *handle = IMPORTED | (fd + 1);
    return fd < 0 ? INVALID_VALUE : OK;
}
API cuMemAddressReserve(Pointer *pointer, size_t len, size_t alignment, Pointer hint, uint64_t flags) {
    void *mapped = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    *pointer = (Pointer)mapped;
    return mapped == MAP_FAILED ? OUT_OF_MEMORY : OK;
}
API cuMemAddressFree(Pointer pointer, size_t len) { return munmap((void *)pointer, len) ? INVALID_VALUE : OK; }
API cuMemMap(Pointer pointer, size_t len, size_t offset, uint64_t handle, uint64_t flags) {
    int fd = fcntl(descriptor(handle), F_DUPFD_CLOEXEC, 0);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) || offset + len > (size_t)status.st_size) return INVALID_VALUE;
    if (mmap((void *)pointer, len, PROT_NONE, MAP_SHARED | MAP_FIXED, fd, offset) == MAP_FAILED) return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    struct Range *range = add_range(pointer, len, fd, 0);
    pthread_mutex_unlock(&lock);
    return range ? OK : OUT_OF_MEMORY;
}
API cuMemSetAccess(Pointer pointer, size_t len, const struct Access *access, size_t count) {
    pthread_mutex_lock(&lock);
    struct Range *range = range_of(pointer);
    int can_write = access->flags == READ_WRITE;
    Result result = range && !mprotect((void *)pointer, len, PROT_READ | (can_write ? PROT_WRITE : 0)) ? OK : INVALID_VALUE;
    if (range) range->can_write = can_write;
    pthread_mutex_unlock(&lock);
    return result;
}
API cuMemUnmap(Pointer pointer, size_t len) {
    pthread_mutex_lock(&lock);
    struct Range *range = range_of(pointer);
    Result result = INVALID_VALUE;
    if (range && range->start == pointer && range->len == len) {
        mmap((void *)pointer, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        close(range->fd);
        range->len = 0;
        result = OK;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

/* --- copies --- */

/* Whether a copy may write to the device here. */
static int writable(Pointer pointer, size_t len) {
    if (!len) return 1;
    pthread_mutex_lock(&lock);
    struct Range *range = range_of(pointer);
    int found = range && range->can_write && pointer + len <= range->start + range->len;
    pthread_mutex_unlock(&lock);
    return found;
}

API cuMemcpyHtoD_v2(Pointer target, const void *source, size_t len) {
    if (outside()) return outside();
    if (!writable(target, len)) return INVALID_VALUE;
    write_log(is_locked(source, len) ? "to-device-locked" : "to-device-pageable", len);
    usleep(1000 * number("STAND_IN_COPY_MS", 0));
    memcpy((void *)target, source, len);
    return OK;
}
/* Copies from the device to the host, as STAND_IN_READS says. */
static void copy_to_host(void *target, const void *source, size_t len) {
    static unsigned char count;
    const char *what = getenv("STAND_IN_READS");
    if (what) memset(target, strcmp(what, "count") ? 0 : ++count, len);
    else memcpy(target, source, len);
}
static Result read_device(void *target, Pointer source, size_t len) {
    if (outside()) return outside();
    write_log(is_locked(target, len) ? "to-host-locked" : "to-host-pageable", len);
    copy_to_host(target, (void *)source, len);
    return OK;
}
API cuMemcpyDtoH_v2(void *target, Pointer source, size_t len) { return read_device(target, source, len); }
API cuMemcpyHtoDAsync_v2(Pointer target, const void *source, size_t len, void *stream) {
    return cuMemcpyHtoD_v2(target, source, len);
}
API cuMemcpyDtoHAsync_v2(void *target, Pointer source, size_t len, void *stream) {
    return cuMemcpyDtoH_v2(target, source, len);
}
API cuMemcpyDtoDAsync_v2(Pointer target, Pointer source, size_t len, void *stream) {
    if (!writable(target, len)) return INVALID_VALUE;
    memcpy((void *)target, (void *)source, len);
    return health();
}

/* CUDA_MEMCPY2D_st. Its memory types are 1 for the host, and 2 for the device. */
struct Side { size_t x, y; int type; void *host; Pointer device; void *array; size_t pitch; };
struct Copy2D { struct Side source, target; size_t width, height; };
API cuMemcpy2DAsync_v2(const struct Copy2D *copy, void *stream) {
    if (outside()) return outside();
    int from_host = copy->source.type == 1, to_host = copy->target.type == 1;
    const char *source = from_host ? copy->source.host : (void *)copy->source.device;
    char *target = to_host ? copy->target.host : (void *)copy->target.device;
    size_t len = copy->width * copy->height;
    if (from_host) write_log(is_locked(source, len) ? "to-device-locked" : "to-device-pageable", len);
    if (to_host) write_log(is_locked(target, len) ? "to-host-locked" : "to-host-pageable", len);
    for (size_t y = 0; y < copy->height; y++) {
        if (to_host) copy_to_host(target + y * copy->target.pitch, source + y * copy->source.pitch, copy->width);
        else memcpy(target + y * copy->target.pitch, source + y * copy->source.pitch, copy->width);
    }
    return OK;
}
