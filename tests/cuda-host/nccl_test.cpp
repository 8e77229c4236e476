// Tests of what stands in for NCCL, between devices of one process and between two processes: nccl-test LIBRARIES_FOLDER
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

int passed = 0, failed = 0;

void check(bool good, const char *what, int line) {
    good ? passed++ : failed++;
    if (!good) fprintf(stderr, "nccl_test.cpp:%d: failed: %s\n", line, what);
}
#define CHECK(condition) check((condition), #condition, __LINE__)

void *cuda, *nccl;

// Calls an API function by name.
template <class... A> unsigned api(const char *name, A... arguments) {
    void *function = dlsym(strncmp(name, "nccl", 4) == 0 ? nccl : cuda, name);
    if (function == nullptr) {
        fprintf(stderr, "%s is missing\n", name);
        exit(1);
    }
    return ((unsigned (*)(A...))function)(arguments...);
}

using Handle = std::uintptr_t;
using Pointer = unsigned long long;
struct Id {
    char name[128];
};

struct Device {
    Handle context = 0, stream = 0, comm = 0;
    Pointer memory = 0;
};

constexpr size_t BYTES = 1 << 20;

void load(const std::string &folder) {
    cuda = dlopen((folder + "/libcuda.so.1").c_str(), RTLD_NOW | RTLD_GLOBAL);
    nccl = dlopen((folder + "/libnccl.so.2").c_str(), RTLD_NOW);
    if (cuda == nullptr || nccl == nullptr) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
}

Device open(int number, int value) {
    Device device;
    CHECK(api("cuInit", 0u) == 0);
    CHECK(api("cuDevicePrimaryCtxRetain", &device.context, number) == 0 && api("cuCtxSetCurrent", device.context) == 0);
    CHECK(api("cuStreamCreate", &device.stream, 1u) == 0 && api("cuMemAlloc_v2", &device.memory, 2 * BYTES) == 0);
    CHECK(api("cuMemsetD8Async", device.memory, (unsigned char)value, BYTES, device.stream) == 0);
    return device;
}

// What the second half of its memory holds everywhere; -1: not one value.
int received(const Device &device) {
    std::vector<unsigned char> bytes(BYTES);
    CHECK(api("cuCtxSetCurrent", device.context) == 0);
    CHECK(api("cuMemcpyDtoHAsync_v2", (void *)bytes.data(), device.memory + BYTES, BYTES, device.stream) == 0);
    for (unsigned char byte : bytes)
        if (byte != bytes[0]) return -1;
    return bytes[0];
}

unsigned swap(Device &device, int peer) {
    unsigned sent = api("ncclSend", (const void *)device.memory, BYTES, 1, peer, device.comm, device.stream);
    return sent != 0 ? sent : api("ncclRecv", (void *)(device.memory + BYTES), BYTES, 1, peer, device.comm, device.stream);
}

// Initialises within a group, as one thread with several devices must.
unsigned join(Device &device, Id id, int ranks, int rank) {
    CHECK(api("cuCtxSetCurrent", device.context) == 0);
    return api("ncclCommInitRank", &device.comm, ranks, id, rank);
}

void one_process() {
    Device devices[2] = {open(0, 3), open(1, 4)};
    Id id;
    CHECK(api("ncclGetUniqueId", &id) == 0);
    api("ncclGroupStart");
    for (int rank = 0; rank < 2; rank++) CHECK(join(devices[rank], id, 2, rank) == 0);
    CHECK(api("ncclGroupEnd") == 0);
    api("ncclGroupStart");
    for (int rank = 0; rank < 2; rank++) CHECK(swap(devices[rank], 1 - rank) == 0);
    CHECK(api("ncclGroupEnd") == 0);
    // Sent is what was there then.
    for (Device &device : devices) {
        CHECK(api("cuCtxSetCurrent", device.context) == 0);
        CHECK(api("cuMemsetD8Async", device.memory, (unsigned char)9, BYTES, device.stream) == 0);
    }
    CHECK(received(devices[0]) == 4 && received(devices[1]) == 3);
    // A send that nobody receives, another handle, no group, two ranks of one device.
    api("ncclGroupStart");
    CHECK(api("ncclSend", (const void *)devices[0].memory, BYTES, 1, 1, devices[0].comm, devices[0].stream) == 0);
    CHECK(api("ncclGroupEnd") == 5);
    int error = 0;
    CHECK(api("ncclCommGetAsyncError", devices[0].comm, &error) == 0 && error == 5);
    CHECK(api("ncclSend", nullptr, BYTES, 1, 1, (Handle)1234, devices[0].stream) == 4);
    CHECK(swap(devices[0], 1) == 5 && api("ncclGroupEnd") == 5);
    for (Device &device : devices) CHECK(api("ncclCommAbort", device.comm) == 0);
    CHECK(api("ncclCommAbort", devices[0].comm) == 4);
    CHECK(api("ncclGetUniqueId", &id) == 0);
    api("ncclGroupStart");
    CHECK(join(devices[0], id, 2, 0) == 0 && join(devices[0], id, 2, 1) == 0);
    CHECK(api("ncclGroupEnd") == 5);
}

// A rank in a process of its own; `ends` before the second exchange.
int rank_of(const Id &id, int rank, bool ends) {
    Device device = open(rank, 5 + rank);
    CHECK(join(device, id, 2, rank) == 0);
    api("ncclGroupStart");
    CHECK(swap(device, 1 - rank) == 0 && api("ncclGroupEnd") == 0);
    CHECK(received(device) == 6 - rank);
    if (ends) return failed;
    api("ncclGroupStart");
    CHECK(swap(device, 1 - rank) == 0 && api("ncclGroupEnd") == 6);
    return failed;
}

void two_processes(const std::string &folder) {
    // Neither has used the libraries before.
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    pid_t children[2];
    for (int rank = 0; rank < 2; rank++) {
        children[rank] = fork();
        if (children[rank] != 0) continue;
        load(folder);
        Id id;
        if (rank == 0) {
            CHECK(api("ncclGetUniqueId", &id) == 0 && write(pipes[1], &id, sizeof id) == sizeof id);
        } else {
            CHECK(read(pipes[0], &id, sizeof id) == sizeof id);
        }
        _exit(rank_of(id, rank, rank == 1));
    }
    for (pid_t child : children) {
        int status = 1;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: nccl-test LIBRARIES_FOLDER\n"), 2;
    setenv("SHARDLIGHT_CUDA_HOST_DEVICES", "2", 1);
    two_processes(argv[1]);
    load(argv[1]);
    one_process();
    printf("nccl-host: %d checks, %d failed\n", passed + failed, failed);
    return failed != 0;
}
