// The state behind the driver API. Everything is guarded by one lock, which `call` takes.
#pragma once
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "exec.h"

#define API extern "C" __attribute__((visibility("default"))) unsigned

namespace cuda_host {

using Handle = std::uintptr_t;
using Pointer = unsigned long long;

// Work of a stream: it says how it ended.
using Work = std::function<Fault()>;

struct Node {
    Work work;
    bool kernel;
};

// What a stream has captured so far, or a graph, or an executable one.
struct Graph {
    int device;
    std::vector<Node> nodes;
};

enum CaptureMode : unsigned { GLOBAL = 0, THREAD_LOCAL = 1, RELAXED = 2 };

struct Capture {
    std::shared_ptr<Graph> graph;
    Handle origin;
    CaptureMode mode;
    std::uint64_t thread;
    bool invalid = false;
    std::vector<Handle> joined;  // other streams that take part
};

// Work is done when somebody waits for it, no sooner: who forgets to wait sees old data.
struct Stream {
    int device;
    bool blocking;  // waits for the null stream and is waited for
    std::deque<Work> queue;
    std::uint64_t queued = 0, done = 0;
    std::shared_ptr<Capture> capture;
    bool unjoined = false;  // captured work that the capture's origin does not wait for
};

struct Event {
    int device;
    bool timing;
    Handle stream = 0;
    std::uint64_t position = 0;  // of the stream when recorded; 0: never
    std::chrono::steady_clock::time_point time;
    std::shared_ptr<Capture> capture;
};

struct Allocation {
    std::size_t bytes, mapped;
    char *map;
    int device;  // -1: the host's, pinned
    bool own = true;  // not registered memory
    bool managed = false;
    bool freeing = false;  // by a stream, later
};

struct Module {
    int device;
    void *library = nullptr;
    std::size_t tls_module, static_shared;
    ~Module();
};

struct Function {
    std::shared_ptr<Module> module;
    const Kernel *kernel;
    std::string name;
    unsigned max_dynamic_shared = 0;
};

// Handles are numbers that are never used again, so an old one is found out.
template <class T> struct Table {
    std::unordered_map<Handle, std::shared_ptr<T>> all;
    Handle add(std::shared_ptr<T> one) {
        static Handle next = 0x10000;
        all[next += 16] = one;
        return next;
    }
    T *find(Handle handle) {
        auto found = all.find(handle);
        return found == all.end() ? nullptr : found->second.get();
    }
    void drop_device(int device) {
        for (auto i = all.begin(); i != all.end();) i = i->second->device == device ? all.erase(i) : std::next(i);
    }
};

struct Device {
    unsigned retained = 0;  // the primary context
    unsigned flags = 0;
    std::size_t used = 0;
    Fault fault;  // stays until the context is gone
    Stream null_stream;
    std::vector<bool> peers;
};

struct Driver {
    std::recursive_mutex lock;
    bool ready = false;
    std::size_t memory = 0;
    std::deque<Device> devices;
    Table<Stream> streams;
    Table<Event> events;
    Table<Module> modules;
    Table<Graph> graphs, execs;
    std::unordered_map<Handle, std::shared_ptr<Function>> functions;
    std::map<Pointer, Allocation> memories;
    std::vector<std::weak_ptr<Capture>> captures;
    std::uint64_t counters[8] = {};
};

// `shardlight_cuda_host_counters`.
enum Counter { LAUNCHES, GRAPH_LAUNCHES, ALLOCATIONS, FREES, BYTES_HTOD, BYTES_DTOH, MODULES, WAITS };

Driver &driver();
std::uint64_t this_thread();

// The device of the context that is current on this thread; -1: none.
extern thread_local int current_device;

constexpr Handle CONTEXTS = 0x1000;  // a device's context is CONTEXTS + 16 * number
inline Handle context_of(int device) { return CONTEXTS + 16 * (Handle)device; }
int device_of(Handle context);

constexpr unsigned MAX_THREADS_PER_BLOCK = 1024, SHARED = 48 << 10, SHARED_OPTIN = 227 << 10, SMS = 132;

// Runs the body of an API function: takes the lock; no exception leaves.
template <class Body> unsigned call(Body body) {
    std::lock_guard<std::recursive_mutex> guard(driver().lock);
    try {
        if (!driver().ready) return NOT_INITIALIZED;
        return body();
    } catch (const std::bad_alloc &) {
        return OUT_OF_MEMORY;
    }
}

// The same with a context, whose earlier fault every call reports.
template <class Body> unsigned with_device(Body body) {
    return call([&]() -> unsigned {
        if (current_device < 0) return INVALID_CONTEXT;
        Device &device = driver().devices[(std::size_t)current_device];
        if (device.retained == 0) return INVALID_CONTEXT;
        if (device.fault.error != SUCCESS) return device.fault.error;
        return body(device);
    });
}

// stream.cpp
Stream *find_stream(Handle);
// Queues work, or captures it.
Result submit(Handle stream, Work, bool kernel = false);
// Runs the stream's work up to a position.
Result run_until(Stream &, std::uint64_t position);
Result finish(Handle stream);
Result finish_all(int device);
// Whether a capture forbids what is not captured and may wait for the device.
Result allowed();

// memory.cpp
// The live allocation that holds all the bytes; null: none. What a stream is to free later is dead for new calls,
// but not for work that was queued before, which is `running` now.
Allocation *find_memory(Pointer, std::size_t bytes, bool running = false);
void release(std::map<Pointer, Allocation>::iterator);

}  // namespace cuda_host
