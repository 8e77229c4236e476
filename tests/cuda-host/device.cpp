// Devices, contexts, errors, counters.
#include <dlfcn.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "driver.h"

namespace cuda_host {

thread_local int current_device = -1;

// Never destroyed: threads may still run when the process ends.
Driver &driver() {
    static Driver *one = new Driver;
    return *one;
}

std::uint64_t this_thread() {
    static std::atomic<std::uint64_t> next{0};
    static thread_local std::uint64_t mine = ++next;
    return mine;
}

int device_of(Handle context) {
    if (context < CONTEXTS || (context - CONTEXTS) % 16 != 0) return -1;
    std::size_t device = (context - CONTEXTS) / 16;
    return device < driver().devices.size() ? (int)device : -1;
}

namespace {

// A device without its primary context has nothing.
void destroy_context(int device) {
    Driver &d = driver();
    finish_all(device);
    for (auto i = d.functions.begin(); i != d.functions.end();)
        i = i->second->module->device == device ? d.functions.erase(i) : std::next(i);
    d.events.drop_device(device);
    d.execs.drop_device(device);
    d.graphs.drop_device(device);
    d.streams.drop_device(device);
    d.modules.drop_device(device);
    for (auto i = d.memories.begin(); i != d.memories.end();) {
        auto memory = i++;
        if (memory->second.device == device) release(memory);
    }
    Device &one = d.devices[(std::size_t)device];
    one.fault = {};
    one.null_stream = {};
    one.null_stream.device = device;
    one.null_stream.blocking = true;
    one.peers.assign(d.devices.size(), false);
}

std::size_t setting(const char *name, std::size_t otherwise) {
    const char *text = getenv(name);
    return text == nullptr || *text == 0 ? otherwise : (std::size_t)strtoull(text, nullptr, 10);
}

// Attributes of an H100, as far as they are asked for; what is not listed is 0.
int attribute_of(unsigned attribute, int device) {
    switch (attribute) {
        case 1: return (int)MAX_THREADS_PER_BLOCK;
        case 2: case 3: return 1024;                       // block x, y
        case 4: return 64;                                 // block z
        case 5: return 0x7fffffff;                         // grid x
        case 6: case 7: return 65535;                      // grid y, z
        case 8: return (int)SHARED;
        case 9: return 64 << 10;                           // constant memory
        case 10: return 32;                                // warp
        case 11: return 0x7fffffff;                        // pitch
        case 12: case 82: return 65536;                    // registers of a block, of a multiprocessor
        case 13: return 1000000;                           // clock, kHz
        case 14: return 512;                               // texture alignment
        case 15: case 19: case 31: case 41: case 83: return 1;  // overlap, mapped host memory, concurrent kernels, unified, managed
        case 16: return (int)SMS;
        case 33: return device + 1;                        // PCI bus
        case 36: return 1000000;                           // memory clock, kHz
        case 37: return 512;                               // memory bus, bits
        case 38: return 50 << 20;                          // L2
        case 39: return 2048;                              // threads of a multiprocessor
        case 40: return 1;                                 // copy engines
        case 75: return 9;                                 // compute capability
        case 76: return 0;
        case 78: return 1;                                 // stream priorities
        case 81: return 228 << 10;                         // shared memory of a multiprocessor
        case 97: return (int)SHARED_OPTIN;
        case 106: return 32;                               // blocks of a multiprocessor
        case 111: return 1024;                             // shared memory that the system takes of a block
        case 115: return 1;                                // memory pools
        default: return 0;
    }
}

struct Name {
    unsigned code;
    const char *name, *text;
};
const Name NAMES[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {PEER_ACCESS_UNSUPPORTED, "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED", "peer access is not supported between these two devices"},
    {INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed: there is no PTX on the host"},
    {FILE_NOT_FOUND, "CUDA_ERROR_FILE_NOT_FOUND", "file not found"},
    {OPERATING_SYSTEM, "CUDA_ERROR_OPERATING_SYSTEM", "OS call failed or operation not supported on this OS"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {LAUNCH_TIMEOUT, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"},
    {PEER_ACCESS_ALREADY_ENABLED, "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED", "peer access is already enabled"},
    {PEER_ACCESS_NOT_ENABLED, "CUDA_ERROR_PEER_ACCESS_NOT_ENABLED", "peer access has not been enabled"},
    {ASSERT, "CUDA_ERROR_ASSERT", "device-side assert triggered"},
    {HOST_MEMORY_ALREADY_REGISTERED, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "part or all of the requested memory range is already mapped"},
    {HOST_MEMORY_NOT_REGISTERED, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "pointer does not correspond to a registered memory region"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {STREAM_CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not ended in the same stream as it began"},
    {STREAM_CAPTURE_UNJOINED, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "capturing stream has unjoined work"},
    {STREAM_CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "dependency created on uncaptured work in another stream"},
    {STREAM_CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would make the legacy stream depend on a capturing blocking stream"},
    {CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream"},
    {STREAM_CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "attempt to terminate a thread-local capture sequence from another thread"},
    {UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

const Name *find_name(unsigned code) {
    for (const Name &name : NAMES)
        if (name.code == code) return &name;
    return nullptr;
}

}  // namespace
}  // namespace cuda_host

using namespace cuda_host;

API cuInit(unsigned flags) {
    Driver &d = driver();
    std::lock_guard<std::recursive_mutex> guard(d.lock);
    if (flags != 0) return INVALID_VALUE;
    if (d.ready) return d.devices.empty() ? NO_DEVICE : SUCCESS;
    d.memory = setting("SHARDLIGHT_CUDA_HOST_MEMORY", (std::size_t)4 << 30);
    d.devices.resize(setting("SHARDLIGHT_CUDA_HOST_DEVICES", 1));
    d.ready = true;
    for (std::size_t i = 0; i < d.devices.size(); i++) destroy_context((int)i);
    return d.devices.empty() ? NO_DEVICE : SUCCESS;
}
API cuDriverGetVersion(int *version) { return version == nullptr ? INVALID_VALUE : (*version = 13000, SUCCESS); }

// ---- devices ----

namespace {
bool known(int device) { return device >= 0 && (std::size_t)device < driver().devices.size(); }
}  // namespace

API cuDeviceGetCount(int *count) {
    return call([&] { return count == nullptr ? INVALID_VALUE : (*count = (int)driver().devices.size(), SUCCESS); });
}
API cuDeviceGet(int *out, int number) {
    return call([&] { return !known(number) ? INVALID_DEVICE : (*out = number, SUCCESS); });
}
API cuDeviceGetName(char *name, int bytes, int device) {
    return call([&] {
        if (!known(device)) return INVALID_DEVICE;
        if (name == nullptr || bytes <= 0) return INVALID_VALUE;
        snprintf(name, (std::size_t)bytes, "CUDA on the host");
        return SUCCESS;
    });
}
API cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    return call([&] {
        if (!known(device)) return INVALID_DEVICE;
        memcpy(uuid, "shardlight-host", 16);
        uuid[15] = (unsigned char)device;
        return SUCCESS;
    });
}
API cuDeviceGetUuid(unsigned char *uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }
API cuDeviceTotalMem_v2(std::size_t *bytes, int device) {
    return call([&] { return !known(device) ? INVALID_DEVICE : (*bytes = driver().memory, SUCCESS); });
}
API cuDeviceGetAttribute(int *value, unsigned attribute, int device) {
    return call([&] {
        if (!known(device)) return INVALID_DEVICE;
        if (value == nullptr || attribute == 0) return INVALID_VALUE;
        *value = attribute_of(attribute, device);
        return SUCCESS;
    });
}
API cuDeviceGetPCIBusId(char *text, int bytes, int device) {
    return call([&] {
        if (!known(device)) return INVALID_DEVICE;
        snprintf(text, (std::size_t)bytes, "0000:%02x:00.0", (unsigned)device + 1);
        return SUCCESS;
    });
}
API cuDeviceCanAccessPeer(int *can, int device, int peer) {
    return call([&] { return !known(device) || !known(peer) ? INVALID_DEVICE : (*can = device != peer, SUCCESS); });
}

// ---- contexts: the primary one of each device ----

API cuDevicePrimaryCtxRetain(Handle *context, int device) {
    return call([&] {
        if (!known(device)) return INVALID_DEVICE;
        driver().devices[(std::size_t)device].retained++;
        *context = context_of(device);
        return SUCCESS;
    });
}
API cuDevicePrimaryCtxRelease_v2(int device) {
    return call([&] {
        if (!known(device)) return INVALID_DEVICE;
        unsigned &retained = driver().devices[(std::size_t)device].retained;
        if (retained == 0) return INVALID_CONTEXT;
        if (--retained == 0) destroy_context(device);
        return SUCCESS;
    });
}
API cuDevicePrimaryCtxReset_v2(int device) {
    return call([&] { return !known(device) ? INVALID_DEVICE : (destroy_context(device), SUCCESS); });
}
API cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) {
    return call([&] { return !known(device) ? INVALID_DEVICE : (driver().devices[(std::size_t)device].flags = flags, SUCCESS); });
}
API cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    return call([&] {
        if (!known(device)) return INVALID_DEVICE;
        *flags = driver().devices[(std::size_t)device].flags;
        *active = driver().devices[(std::size_t)device].retained != 0;
        return SUCCESS;
    });
}
API cuCtxGetCurrent(Handle *context) {
    return call([&] { return *context = current_device < 0 ? 0 : context_of(current_device), SUCCESS; });
}
API cuCtxSetCurrent(Handle context) {
    return call([&] {
        int device = device_of(context);
        if (context != 0 && (device < 0 || driver().devices[(std::size_t)device].retained == 0)) return INVALID_CONTEXT;
        current_device = device;
        return SUCCESS;
    });
}
API cuCtxGetDevice(int *device) {
    return with_device([&](Device &) { return *device = current_device, SUCCESS; });
}
API cuCtxSynchronize() {
    return with_device([&](Device &) {
        if (Result r = allowed()) return r;
        driver().counters[WAITS]++;
        return finish_all(current_device);
    });
}
API cuCtxSetFlags(unsigned flags) {
    return with_device([&](Device &device) { return device.flags = flags, SUCCESS; });
}
API cuCtxGetFlags(unsigned *flags) {
    return with_device([&](Device &device) { return *flags = device.flags, SUCCESS; });
}
API cuCtxGetLimit(std::size_t *value, unsigned) {
    return with_device([&](Device &) { return *value = STACK, SUCCESS; });
}
API cuCtxSetLimit(unsigned, std::size_t) {
    return with_device([&](Device &) { return SUCCESS; });
}
API cuCtxGetCacheConfig(unsigned *value) {
    return with_device([&](Device &) { return *value = 0, SUCCESS; });
}
API cuCtxSetCacheConfig(unsigned) {
    return with_device([&](Device &) { return SUCCESS; });
}
API cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    return with_device([&](Device &) { return *least = 0, *greatest = -5, SUCCESS; });
}
API cuCtxEnablePeerAccess(Handle peer, unsigned flags) {
    return with_device([&](Device &device) {
        int other = device_of(peer);
        if (other < 0 || flags != 0) return INVALID_VALUE;
        if (other == current_device) return INVALID_DEVICE;
        if (device.peers[(std::size_t)other]) return PEER_ACCESS_ALREADY_ENABLED;
        device.peers[(std::size_t)other] = true;
        return SUCCESS;
    });
}
API cuCtxDisablePeerAccess(Handle peer) {
    return with_device([&](Device &device) {
        int other = device_of(peer);
        if (other < 0 || !device.peers[(std::size_t)other]) return PEER_ACCESS_NOT_ENABLED;
        device.peers[(std::size_t)other] = false;
        return SUCCESS;
    });
}

// ---- errors ----

API cuGetErrorName(unsigned code, const char **out) {
    const Name *name = find_name(code);
    *out = name == nullptr ? nullptr : name->name;
    return name == nullptr ? INVALID_VALUE : SUCCESS;
}
// Of a launch that failed, it says more than NVIDIA's does: which kernel, and what was wrong.
API cuGetErrorString(unsigned code, const char **out) {
    const Name *name = find_name(code);
    *out = name == nullptr ? nullptr : name->text;
    if (name == nullptr) return INVALID_VALUE;
    std::lock_guard<std::recursive_mutex> guard(driver().lock);
    if (current_device >= 0) {
        const Fault &fault = driver().devices[(std::size_t)current_device].fault;
        if (code != SUCCESS && fault.error == code) {
            static std::deque<std::string> texts;
            std::string text = std::string(name->text) + ": " + fault.what;
            if (texts.empty() || texts.back() != text) texts.push_back(text);
            *out = texts.back().c_str();
        }
    }
    return SUCCESS;
}

API cuProfilerStart() { return SUCCESS; }
API cuProfilerStop() { return SUCCESS; }

// The newest form of a function that is here: names with a version behind them are the newer ones.
API cuGetProcAddress_v2(const char *symbol, void **out, int, std::uint64_t, unsigned *status) {
    Dl_info self;
    if (symbol == nullptr || out == nullptr || dladdr((void *)&cuInit, &self) == 0) return INVALID_VALUE;
    void *library = dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    *out = nullptr;
    for (const char *version : {"_v3", "_v2", ""})
        if (*out == nullptr) *out = dlsym(library, (std::string(symbol) + version).c_str());
    dlclose(library);
    if (status != nullptr) *status = *out == nullptr ? 1 : 0;
    return *out == nullptr ? NOT_FOUND : SUCCESS;
}

// ---- for tests ----

// out: kernel launches (those of graphs too), graph launches, allocations and frees of device memory, bytes from
// and to the host, modules loaded, waits of the host. They only grow.
extern "C" __attribute__((visibility("default"))) void shardlight_cuda_host_counters(std::uint64_t out[8]) {
    std::lock_guard<std::recursive_mutex> guard(driver().lock);
    memcpy(out, driver().counters, sizeof driver().counters);
}
