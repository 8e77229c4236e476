// Streams, events, capture and graphs.
#include <algorithm>

#include "driver.h"

namespace cuda_host {

Stream *find_stream(Handle handle) {
    // 1 and 2 are the names of the null stream, and of one for each thread; we have no difference.
    if (handle <= 2) return &driver().devices[(std::size_t)current_device].null_stream;
    Stream *stream = driver().streams.find(handle);
    return stream != nullptr && stream->device == current_device ? stream : nullptr;
}

Result run_until(Stream &stream, std::uint64_t position) {
    Device &device = driver().devices[(std::size_t)stream.device];
    while (stream.done < position && device.fault.error == SUCCESS) {
        Work work = std::move(stream.queue.front());
        stream.queue.pop_front();
        stream.done++;
        Fault fault = work();
        if (fault.error != SUCCESS && device.fault.error == SUCCESS) device.fault = fault;
    }
    return device.fault.error;
}

Result finish(Handle handle) {
    Stream *stream = find_stream(handle);
    if (stream == nullptr) return INVALID_HANDLE;
    driver().counters[WAITS]++;
    return run_until(*stream, stream->queued);
}

Result finish_all(int device) {
    Driver &d = driver();
    Device &one = d.devices[(std::size_t)device];
    run_until(one.null_stream, one.null_stream.queued);
    for (auto &[handle, stream] : d.streams.all)
        if (stream->device == device) run_until(*stream, stream->queued);
    return one.fault.error;
}

Result allowed() {
    auto &all = driver().captures;
    all.erase(std::remove_if(all.begin(), all.end(), [](auto &one) { return one.expired(); }), all.end());
    for (auto &one : all) {
        auto capture = one.lock();
        if (capture->mode == GLOBAL || (capture->mode == THREAD_LOCAL && capture->thread == this_thread())) {
            capture->invalid = true;
            return STREAM_CAPTURE_UNSUPPORTED;
        }
    }
    return SUCCESS;
}

namespace {

void push(Stream &stream, Work work) {
    stream.queue.push_back(std::move(work));
    stream.queued++;
}

// Makes one stream wait for what another has queued so far.
void order(Stream &later, Stream &earlier) {
    if (earlier.done == earlier.queued) return;
    std::uint64_t position = earlier.queued;
    Stream *other = &earlier;
    push(later, [other, position]() -> Fault {
        Result r = run_until(*other, position);
        return {r, r == SUCCESS ? "" : driver().devices[(std::size_t)other->device].fault.what};
    });
}

}  // namespace

Result submit(Handle handle, Work work, bool kernel) {
    Stream *stream = find_stream(handle);
    if (stream == nullptr) return INVALID_HANDLE;
    if (stream->capture) {
        if (stream->capture->invalid) return STREAM_CAPTURE_INVALIDATED;
        stream->capture->graph->nodes.push_back({std::move(work), kernel});
        stream->unjoined = handle != stream->capture->origin;
        return SUCCESS;
    }
    Device &device = driver().devices[(std::size_t)current_device];
    if (stream == &device.null_stream) {
        for (auto &[other_handle, other] : driver().streams.all) {
            if (other->device != current_device || !other->blocking) continue;
            if (other->capture) return other->capture->invalid = true, STREAM_CAPTURE_IMPLICIT;
            order(*stream, *other);
        }
    } else if (stream->blocking) {
        order(*stream, device.null_stream);
    }
    push(*stream, std::move(work));
    return SUCCESS;
}

}  // namespace cuda_host

using namespace cuda_host;

// ---- streams ----

API cuStreamCreateWithPriority(Handle *out, unsigned flags, int) {
    return with_device([&](Device &) {
        if (out == nullptr || flags > 1) return INVALID_VALUE;
        auto stream = std::make_shared<Stream>();
        stream->device = current_device;
        stream->blocking = flags == 0;
        *out = driver().streams.add(stream);
        return SUCCESS;
    });
}
API cuStreamCreate(Handle *out, unsigned flags) { return cuStreamCreateWithPriority(out, flags, 0); }
API cuStreamDestroy_v2(Handle handle) {
    return with_device([&](Device &) -> Result {
        Stream *stream = driver().streams.find(handle);
        if (stream == nullptr) return INVALID_HANDLE;
        if (stream->capture) stream->capture->invalid = true;
        // Others may wait for it by its address; it must have nothing left to wait for.
        Result r = run_until(*stream, stream->queued);
        finish_all(stream->device);
        driver().streams.all.erase(handle);
        return r;
    });
}
API cuStreamSynchronize(Handle handle) {
    return with_device([&](Device &) -> Result {
        Stream *stream = find_stream(handle);
        if (stream == nullptr) return INVALID_HANDLE;
        if (stream->capture) return stream->capture->invalid = true, STREAM_CAPTURE_UNSUPPORTED;
        return finish(handle);
    });
}
API cuStreamQuery(Handle handle) {
    return with_device([&](Device &) -> Result {
        Stream *stream = find_stream(handle);
        if (stream == nullptr) return INVALID_HANDLE;
        if (stream->capture) return stream->capture->invalid = true, STREAM_CAPTURE_UNSUPPORTED;
        if (stream->done == stream->queued) return SUCCESS;
        // It is done when asked the next time.
        Result r = run_until(*stream, stream->queued);
        return r != SUCCESS ? r : NOT_READY;
    });
}
API cuStreamGetCtx(Handle handle, Handle *out) {
    return with_device([&](Device &) {
        if (find_stream(handle) == nullptr || out == nullptr) return INVALID_HANDLE;
        *out = context_of(current_device);
        return SUCCESS;
    });
}
API cuStreamAttachMemAsync(Handle handle, Pointer, std::size_t, unsigned) {
    return with_device([&](Device &) { return find_stream(handle) == nullptr ? INVALID_HANDLE : SUCCESS; });
}
API cuLaunchHostFunc(Handle handle, void (*function)(void *), void *data) {
    return with_device([&](Device &) {
        if (function == nullptr) return INVALID_VALUE;
        return submit(handle, [=]() -> Fault { return function(data), Fault{}; });
    });
}

// ---- events ----

API cuEventCreate(Handle *out, unsigned flags) {
    return with_device([&](Device &) {
        if (out == nullptr) return INVALID_VALUE;
        auto event = std::make_shared<Event>();
        event->device = current_device;
        event->timing = (flags & 2) == 0;
        *out = driver().events.add(event);
        return SUCCESS;
    });
}
API cuEventDestroy_v2(Handle handle) {
    return with_device([&](Device &) { return driver().events.all.erase(handle) == 1 ? SUCCESS : INVALID_HANDLE; });
}
API cuEventRecord(Handle handle, Handle stream_handle) {
    return with_device([&](Device &) -> Result {
        auto found = driver().events.all.find(handle);
        Stream *stream = find_stream(stream_handle);
        if (found == driver().events.all.end() || stream == nullptr) return INVALID_HANDLE;
        auto event = found->second;
        if (event->device != current_device) return INVALID_HANDLE;
        event->capture = stream->capture;
        event->stream = stream_handle;
        if (stream->capture) return stream->capture->invalid ? STREAM_CAPTURE_INVALIDATED : SUCCESS;
        Result r = submit(stream_handle, [event]() -> Fault {
            event->time = std::chrono::steady_clock::now();
            return {};
        });
        event->position = stream->queued;
        return r;
    });
}
API cuEventRecordWithFlags(Handle handle, Handle stream, unsigned) { return cuEventRecord(handle, stream); }

namespace {

// The stream that an event waits for; null: the event has nothing left to wait for.
Stream *pending(const Event &event) {
    if (event.position == 0) return nullptr;
    Device &device = driver().devices[(std::size_t)event.device];
    Stream *stream = event.stream <= 2 ? &device.null_stream : driver().streams.find(event.stream);
    return stream != nullptr && stream->done < event.position ? stream : nullptr;
}

Result wait_for(Handle handle, bool query) {
    Event *event = driver().events.find(handle);
    if (event == nullptr) return INVALID_HANDLE;
    if (event->capture) return event->capture->invalid = true, CAPTURED_EVENT;
    if (!query) driver().counters[WAITS]++;
    Stream *stream = pending(*event);
    if (stream == nullptr) return SUCCESS;
    Result r = run_until(*stream, event->position);
    return r == SUCCESS && query ? NOT_READY : r;
}

}  // namespace

API cuEventQuery(Handle handle) {
    return with_device([&](Device &) { return wait_for(handle, true); });
}
API cuEventSynchronize(Handle handle) {
    return with_device([&](Device &) { return wait_for(handle, false); });
}
API cuEventElapsedTime(float *milliseconds, Handle start, Handle end) {
    return with_device([&](Device &) {
        Event *a = driver().events.find(start), *b = driver().events.find(end);
        if (a == nullptr || b == nullptr || !a->timing || !b->timing || a->position == 0 || b->position == 0)
            return INVALID_HANDLE;
        if (pending(*a) != nullptr || pending(*b) != nullptr) return NOT_READY;
        *milliseconds = std::chrono::duration<float, std::milli>(b->time - a->time).count();
        return SUCCESS;
    });
}
API cuEventElapsedTime_v2(float *milliseconds, Handle start, Handle end) {
    return cuEventElapsedTime(milliseconds, start, end);
}

API cuStreamWaitEvent(Handle handle, Handle event_handle, unsigned) {
    return with_device([&](Device &) -> Result {
        Stream *stream = find_stream(handle);
        auto found = driver().events.all.find(event_handle);
        if (stream == nullptr || found == driver().events.all.end()) return INVALID_HANDLE;
        auto event = found->second;
        if (event->capture) {
            // Waiting for captured work takes part in the capture.
            if (!stream->capture) {
                if (stream->done != stream->queued && handle <= 2) return STREAM_CAPTURE_IMPLICIT;
                stream->capture = event->capture;
                stream->capture->joined.push_back(handle);
                stream->unjoined = true;
            } else if (stream->capture != event->capture) {
                stream->capture->invalid = event->capture->invalid = true;
                return STREAM_CAPTURE_ISOLATION;
            }
            Stream *other = find_stream(event->stream);
            if (other != nullptr && other != stream) other->unjoined = false;
            return stream->capture->invalid ? STREAM_CAPTURE_INVALIDATED : SUCCESS;
        }
        if (event->position == 0) return SUCCESS;
        if (stream->capture) return stream->capture->invalid = true, STREAM_CAPTURE_ISOLATION;
        Stream *other = pending(*event);
        if (other == nullptr || other == stream) return SUCCESS;
        // The position now: recording the event again does not change what this waits for.
        std::uint64_t position = event->position;
        Handle other_handle = event->stream;
        int device = event->device;
        return submit(handle, [=]() -> Fault {
            Device &owner = driver().devices[(std::size_t)device];
            Stream *earlier = other_handle <= 2 ? &owner.null_stream : driver().streams.find(other_handle);
            if (earlier == nullptr) return {};
            Result r = run_until(*earlier, position);
            return {r, r == SUCCESS ? "" : owner.fault.what};
        });
    });
}

// ---- capture ----

API cuStreamBeginCapture_v2(Handle handle, unsigned mode) {
    return with_device([&](Device &) -> Result {
        Stream *stream = find_stream(handle);
        if (stream == nullptr) return INVALID_HANDLE;
        if (handle <= 2) return STREAM_CAPTURE_UNSUPPORTED;
        if (mode > RELAXED) return INVALID_VALUE;
        if (stream->capture) return ILLEGAL_STATE;
        auto capture = std::make_shared<Capture>();
        capture->graph = std::make_shared<Graph>();
        capture->graph->device = current_device;
        capture->origin = handle;
        capture->mode = (CaptureMode)mode;
        capture->thread = this_thread();
        stream->capture = capture;
        driver().captures.push_back(capture);
        return SUCCESS;
    });
}
API cuStreamEndCapture(Handle handle, Handle *graph) {
    return with_device([&](Device &) -> Result {
        Stream *stream = find_stream(handle);
        if (stream == nullptr || graph == nullptr) return INVALID_HANDLE;
        *graph = 0;
        auto capture = stream->capture;
        if (!capture) return ILLEGAL_STATE;
        if (capture->origin != handle) return STREAM_CAPTURE_UNMATCHED;
        if (capture->mode != RELAXED && capture->thread != this_thread()) return STREAM_CAPTURE_WRONG_THREAD;
        bool unjoined = false;
        for (Handle joined : capture->joined) {
            Stream *other = find_stream(joined);
            if (other == nullptr) continue;
            unjoined |= other->unjoined;
            other->capture.reset();
        }
        stream->capture.reset();
        // Events keep the capture they were recorded in; it must not forbid anything any more.
        capture->mode = RELAXED;
        if (capture->invalid) return STREAM_CAPTURE_INVALIDATED;
        if (unjoined) return STREAM_CAPTURE_UNJOINED;
        *graph = driver().graphs.add(capture->graph);
        return SUCCESS;
    });
}
API cuStreamIsCapturing(Handle handle, unsigned *status) {
    return with_device([&](Device &) {
        Stream *stream = find_stream(handle);
        if (stream == nullptr || status == nullptr) return INVALID_HANDLE;
        *status = !stream->capture ? 0 : stream->capture->invalid ? 2 : 1;
        return SUCCESS;
    });
}

// ---- graphs ----

API cuGraphInstantiateWithFlags(Handle *exec, Handle handle, unsigned long long flags) {
    return with_device([&](Device &) {
        auto graph = driver().graphs.find(handle);
        if (graph == nullptr) return INVALID_HANDLE;
        // Freed memory at launch and a launch by the device exclude each other; we have no launches by the device.
        if (exec == nullptr || (flags & 4) != 0) return INVALID_VALUE;
        *exec = driver().execs.add(std::make_shared<Graph>(*graph));
        return SUCCESS;
    });
}
API cuGraphGetNodes(Handle handle, Handle *nodes, std::size_t *count) {
    return with_device([&](Device &) {
        auto graph = driver().graphs.find(handle);
        if (graph == nullptr || count == nullptr) return INVALID_HANDLE;
        if (nodes != nullptr) return NOT_SUPPORTED;
        *count = graph->nodes.size();
        return SUCCESS;
    });
}
API cuGraphUpload(Handle exec, Handle stream) {
    return with_device([&](Device &) {
        return driver().execs.find(exec) == nullptr || find_stream(stream) == nullptr ? INVALID_HANDLE : SUCCESS;
    });
}
API cuGraphLaunch(Handle exec, Handle stream) {
    return with_device([&](Device &) -> Result {
        auto found = driver().execs.all.find(exec);
        Stream *on = find_stream(stream);
        if (found == driver().execs.all.end() || on == nullptr) return INVALID_HANDLE;
        auto graph = found->second;
        if (graph->device != current_device) return INVALID_CONTEXT;
        driver().counters[GRAPH_LAUNCHES]++;
        for (const Node &node : graph->nodes) driver().counters[LAUNCHES] += node.kernel;
        return submit(stream, [graph]() -> Fault {
            for (const Node &node : graph->nodes) {
                Fault fault = node.work();
                if (fault.error != SUCCESS) return fault;
            }
            return {};
        });
    });
}
API cuGraphDestroy(Handle handle) {
    return with_device([&](Device &) { return driver().graphs.all.erase(handle) == 1 ? SUCCESS : INVALID_HANDLE; });
}
API cuGraphExecDestroy(Handle handle) {
    return with_device([&](Device &) { return driver().execs.all.erase(handle) == 1 ? SUCCESS : INVALID_HANDLE; });
}
