// Runs a kernel: blocks on threads of the operating system, the threads of a block as fibres.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "abi.h"

namespace cuda_host {

// CUresult as far as it is needed here and there.
enum Result : unsigned {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101,
    INVALID_IMAGE = 200, INVALID_CONTEXT = 201, NO_BINARY_FOR_GPU = 209, PEER_ACCESS_UNSUPPORTED = 217,
    INVALID_PTX = 218, FILE_NOT_FOUND = 301, OPERATING_SYSTEM = 304, INVALID_HANDLE = 400, ILLEGAL_STATE = 401,
    NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700, LAUNCH_OUT_OF_RESOURCES = 701, LAUNCH_TIMEOUT = 702,
    PEER_ACCESS_ALREADY_ENABLED = 704, PEER_ACCESS_NOT_ENABLED = 705, ASSERT = 710,
    HOST_MEMORY_ALREADY_REGISTERED = 712, HOST_MEMORY_NOT_REGISTERED = 713, LAUNCH_FAILED = 719, NOT_SUPPORTED = 801,
    STREAM_CAPTURE_UNSUPPORTED = 900, STREAM_CAPTURE_INVALIDATED = 901, STREAM_CAPTURE_UNMATCHED = 903,
    STREAM_CAPTURE_UNJOINED = 904, STREAM_CAPTURE_ISOLATION = 905, STREAM_CAPTURE_IMPLICIT = 906, CAPTURED_EVENT = 907,
    STREAM_CAPTURE_WRONG_THREAD = 908, UNKNOWN = 999,
};

struct Launch {
    const Kernel *kernel;
    std::string name;
    Index grid, block;
    unsigned dynamic_shared;   // bytes
    std::size_t tls_module;    // the module's thread-local storage is its static shared memory
    std::size_t static_shared; // bytes
    std::vector<std::uint64_t> storage;  // the arguments
    std::vector<void *> arguments;       // into `storage`
};

// What ended a launch; `what` is for people.
struct Fault {
    Result error = SUCCESS;
    std::string what;
};

// Runs all blocks. Not reentrant: one launch at a time.
Fault run(const Launch &);

}  // namespace cuda_host
