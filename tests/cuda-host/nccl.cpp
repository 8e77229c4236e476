// The part of NCCL that our communicator calls: sends and receives between devices of one process as copies on their
// streams, between processes through sockets that the unique id names.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

using Handle = std::uintptr_t;
using Pointer = unsigned long long;

extern "C" {
unsigned cuCtxGetCurrent(Handle *);
unsigned cuCtxSetCurrent(Handle);
unsigned cuEventCreate(Handle *, unsigned);
unsigned cuEventDestroy_v2(Handle);
unsigned cuEventRecord(Handle, Handle);
unsigned cuStreamWaitEvent(Handle, Handle, unsigned);
unsigned cuStreamSynchronize(Handle);
unsigned cuMemcpyPeerAsync(Pointer, Handle, Pointer, Handle, std::size_t, Handle);
unsigned cuMemcpyDtoHAsync_v2(void *, Pointer, std::size_t, Handle);
unsigned cuMemcpyHtoDAsync_v2(Pointer, const void *, std::size_t, Handle);
unsigned cuGetErrorString(unsigned, const char **);
}

namespace {

enum Result { SUCCESS, CUDA_ERROR, SYSTEM_ERROR, INTERNAL_ERROR, INVALID_ARGUMENT, INVALID_USAGE, REMOTE_ERROR };
const char *MEANINGS[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error",
                          "invalid argument", "invalid usage", "remote process exited or there was a network error"};

struct Id {
    char name[128];
};

struct Comm {
    std::string id;
    int ranks, rank;
    Handle context;
    int error = SUCCESS;
    std::map<int, Comm *> here;   // the ranks of this process
    std::map<int, int> sockets;   // to the ranks of others
};

struct Init {
    Comm **out;
    Comm *comm;
};

struct Move {
    bool sends;
    Pointer memory;
    std::size_t bytes;
    int peer;
    Comm *comm;
    Handle stream;
    bool matched = false;
};

std::mutex lock;
std::set<Comm *> comms;
std::uint64_t counters[3];  // groups, messages, bytes

thread_local int depth = 0;
thread_local std::vector<Init> inits;
thread_local std::vector<Move> moves;
thread_local std::string last_error;

int fail(int result, const std::string &text) {
    last_error = text;
    return result;
}

// A driver's call that fails ends what is being done.
struct Failure {
    int result;
    std::string text;
};

void driver(unsigned code) {
    const char *text = nullptr;
    if (code != 0) throw Failure{CUDA_ERROR, cuGetErrorString(code, &text) == 0 ? text : "an error of the driver"};
}

std::string rank_text(int rank) { return "rank " + std::to_string(rank); }

// ---- between processes ----

socklen_t address_of(sockaddr_un &address, const std::string &id, int rank) {
    std::string name = id + "-" + std::to_string(rank);
    address = {};
    address.sun_family = AF_UNIX;
    // An abstract name: it goes with its socket.
    memcpy(address.sun_path + 1, name.data(), name.size());
    return (socklen_t)(offsetof(sockaddr_un, sun_path) + 1 + name.size());
}

constexpr int PATIENCE = 30000;  // milliseconds

int listen_at(const Comm &comm) {
    sockaddr_un address;
    socklen_t length = address_of(address, comm.id, comm.rank);
    int socket_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(socket_, (sockaddr *)&address, length) != 0 || listen(socket_, comm.ranks) != 0)
        throw Failure{SYSTEM_ERROR, rank_text(comm.rank) + " is there already"};
    return socket_;
}

void connect_to(Comm &comm, int peer) {
    sockaddr_un address;
    socklen_t length = address_of(address, comm.id, peer);
    auto start = std::chrono::steady_clock::now();
    int socket_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    while (connect(socket_, (sockaddr *)&address, length) != 0) {
        if (std::chrono::steady_clock::now() - start > std::chrono::milliseconds(PATIENCE))
            throw Failure{SYSTEM_ERROR, rank_text(peer) + " did not come"};
        usleep(2000);
    }
    if (write(socket_, &comm.rank, sizeof comm.rank) != sizeof comm.rank) throw Failure{REMOTE_ERROR, rank_text(peer) + " is gone"};
    comm.sockets[peer] = socket_;
}

void accept_one(Comm &comm, int listening) {
    pollfd wait = {listening, POLLIN, 0};
    int peer = 0;
    if (poll(&wait, 1, PATIENCE) != 1) throw Failure{SYSTEM_ERROR, "a rank did not come"};
    int socket_ = accept4(listening, nullptr, nullptr, SOCK_CLOEXEC);
    if (recv(socket_, &peer, sizeof peer, MSG_WAITALL) != sizeof peer) throw Failure{REMOTE_ERROR, "a rank is gone"};
    comm.sockets[peer] = socket_;
}

struct Stream {
    std::vector<char> bytes;
    std::size_t done = 0;
    bool left() const { return done < bytes.size(); }
};

// Sends and receives whatever the group has for other processes; messages are a length and bytes.
void exchange(std::vector<Move *> &all) {
    std::map<int, std::pair<Stream, Stream>> sockets;  // what goes out, what comes in
    std::map<int, int> peers;
    for (Move *move : all) {
        driver(cuCtxSetCurrent(move->comm->context));
        driver(cuStreamSynchronize(move->stream));
        int socket_ = move->comm->sockets.at(move->peer);
        peers[socket_] = move->peer;
        auto &[out, in] = sockets[socket_];
        std::vector<char> &bytes = move->sends ? out.bytes : in.bytes;
        std::uint64_t length = move->bytes;
        std::size_t at = bytes.size();
        bytes.resize(at + sizeof length + move->bytes);
        if (!move->sends) continue;
        memcpy(bytes.data() + at, &length, sizeof length);
        driver(cuMemcpyDtoHAsync_v2(bytes.data() + at + sizeof length, move->memory, move->bytes, move->stream));
    }
    for (;;) {
        std::vector<pollfd> waits;
        for (auto &[socket_, both] : sockets) {
            short events = (short)((both.first.left() ? POLLOUT : 0) | (both.second.left() ? POLLIN : 0));
            if (events != 0) waits.push_back({socket_, events, 0});
        }
        if (waits.empty()) break;
        poll(waits.data(), waits.size(), -1);
        for (pollfd &wait : waits) {
            auto &[out, in] = sockets[wait.fd];
            for (Stream *stream : {&out, &in}) {
                if (!stream->left() || (wait.revents & (stream == &out ? POLLOUT | POLLERR : POLLIN | POLLHUP | POLLERR)) == 0) continue;
                char *at = stream->bytes.data() + stream->done;
                std::size_t rest = stream->bytes.size() - stream->done;
                ssize_t n = stream == &out ? send(wait.fd, at, rest, MSG_DONTWAIT | MSG_NOSIGNAL) : recv(wait.fd, at, rest, MSG_DONTWAIT);
                if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
                if (n <= 0) throw Failure{REMOTE_ERROR, rank_text(peers[wait.fd]) + " is gone"};
                stream->done += (std::size_t)n;
            }
        }
    }
    std::map<int, std::size_t> read;
    for (Move *move : all) {
        if (move->sends) continue;
        int socket_ = move->comm->sockets.at(move->peer);
        const char *bytes = sockets[socket_].second.bytes.data() + read[socket_];
        std::uint64_t length;
        memcpy(&length, bytes, sizeof length);
        if (length != move->bytes)
            throw Failure{INVALID_USAGE, rank_text(move->peer) + " sent " + std::to_string(length) + " bytes, " + std::to_string(move->bytes) + " were expected"};
        driver(cuCtxSetCurrent(move->comm->context));
        driver(cuMemcpyHtoDAsync_v2(move->memory, bytes + sizeof length, move->bytes, move->stream));
        read[socket_] += sizeof length + move->bytes;
    }
}

// ---- within a process ----

// Every receiver's stream waits for the senders' and copies; then the senders' wait for that.
void copy(std::vector<std::pair<Move *, Move *>> &pairs) {
    std::map<Handle, Handle> before, after;
    auto record = [](std::map<Handle, Handle> &events, const Move &move) {
        auto [found, added] = events.try_emplace(move.stream, 0);
        if (!added) return;
        driver(cuCtxSetCurrent(move.comm->context));
        driver(cuEventCreate(&found->second, 2));
        driver(cuEventRecord(found->second, move.stream));
    };
    for (auto &[from, to] : pairs) record(before, *from), record(before, *to);
    for (auto &[from, to] : pairs) {
        driver(cuCtxSetCurrent(to->comm->context));
        driver(cuStreamWaitEvent(to->stream, before[from->stream], 0));
        driver(cuMemcpyPeerAsync(to->memory, to->comm->context, from->memory, from->comm->context, to->bytes, to->stream));
    }
    for (auto &[from, to] : pairs) record(after, *to);
    for (auto &[from, to] : pairs) {
        driver(cuCtxSetCurrent(from->comm->context));
        driver(cuStreamWaitEvent(from->stream, after[to->stream], 0));
    }
    for (auto &events : {before, after})
        for (auto &[stream, event] : events) driver(cuEventDestroy_v2(event));
}

void begin(std::vector<Init> &all) {
    for (Init &one : all)
        for (Init &other : all) {
            if (other.comm->id != one.comm->id) continue;
            if (&one != &other && one.comm->context == other.comm->context)
                throw Failure{INVALID_USAGE, "Duplicate GPU detected : " + rank_text(one.comm->rank) + " and " + rank_text(other.comm->rank)};
            one.comm->here[other.comm->rank] = other.comm;
        }
    std::vector<int> listening;
    for (Init &one : all) listening.push_back((int)one.comm->here.size() == one.comm->ranks ? -1 : listen_at(*one.comm));
    for (std::size_t i = 0; i < all.size(); i++) {
        Comm &comm = *all[i].comm;
        for (int peer = 0; peer < comm.ranks; peer++) {
            if (comm.here.count(peer) != 0) continue;
            if (peer < comm.rank) connect_to(comm, peer);
            else accept_one(comm, listening[i]);
        }
    }
    for (int socket_ : listening) close(socket_);
    for (Init &one : all) {
        comms.insert(one.comm);
        *one.out = one.comm;
    }
}

void run(std::vector<Move> &all) {
    counters[0]++;
    const char *chosen = getenv("SHARDLIGHT_NCCL_HOST_FAIL");
    if (chosen != nullptr && strtoull(chosen, nullptr, 10) == counters[0]) throw Failure{INTERNAL_ERROR, "asked to fail"};
    std::vector<std::pair<Move *, Move *>> pairs;
    std::vector<Move *> far;
    for (Move &from : all) {
        counters[1] += from.sends;
        counters[2] += from.sends ? from.bytes : 0;
        auto near = from.comm->here.find(from.peer);
        if (near == from.comm->here.end()) {
            far.push_back(&from);
            continue;
        }
        if (!from.sends) continue;
        for (Move &to : all)
            if (!from.matched && !to.matched && !to.sends && to.comm == near->second && to.peer == from.comm->rank) {
                if (from.bytes != to.bytes) throw Failure{INVALID_USAGE, "a send and its receive differ in bytes"};
                from.matched = to.matched = true;
                pairs.push_back({&from, &to});
            }
    }
    for (Move &move : all)
        if (!move.matched && move.comm->here.count(move.peer) != 0)
            throw Failure{INVALID_USAGE, rank_text(move.comm->rank) + " waits for " + rank_text(move.peer) + " for ever"};
    if (!pairs.empty()) copy(pairs);
    if (!far.empty()) exchange(far);
}

int end_group() {
    std::lock_guard<std::mutex> guard(lock);
    auto new_ones = std::move(inits);
    auto all = std::move(moves);
    inits.clear();
    moves.clear();
    Handle context = 0;
    cuCtxGetCurrent(&context);
    int result = SUCCESS;
    try {
        if (!new_ones.empty()) begin(new_ones);
        if (!all.empty()) run(all);
    } catch (const Failure &failure) {
        for (Move &move : all) move.comm->error = failure.result;
        result = fail(failure.result, failure.text);
    }
    cuCtxSetCurrent(context);
    return result;
}

int add(Move move, int type) {
    {
        std::lock_guard<std::mutex> guard(lock);
        if (comms.count(move.comm) == 0) return fail(INVALID_ARGUMENT, "no such communicator");
    }
    if (type < 0 || type > 1) return fail(INVALID_ARGUMENT, "only bytes are moved here");
    if (move.peer < 0 || move.peer >= move.comm->ranks) return fail(INVALID_ARGUMENT, "no such rank");
    if (depth == 0) return fail(INVALID_USAGE, "our sends and receives are in groups");
    moves.push_back(move);
    return SUCCESS;
}

}  // namespace

API int ncclGetVersion(int *version) { return *version = 22800, SUCCESS; }
API const char *ncclGetErrorString(int code) { return code >= 0 && code <= REMOTE_ERROR ? MEANINGS[code] : "unknown result code"; }
API const char *ncclGetLastError(Comm *) { return last_error.c_str(); }

API int ncclGetUniqueId(Id *id) {
    std::uint64_t random[2] = {};
    int file = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    bool good = read(file, random, sizeof random) == sizeof random;
    close(file);
    if (!good) return fail(SYSTEM_ERROR, "no random numbers");
    *id = {};
    snprintf(id->name, sizeof id->name, "shardlight-nccl-%016llx%016llx", (unsigned long long)random[0], (unsigned long long)random[1]);
    return SUCCESS;
}

API int ncclGroupStart() { return depth++, SUCCESS; }
API int ncclGroupEnd() {
    if (depth == 0) return fail(INVALID_USAGE, "no group was started");
    return --depth == 0 ? end_group() : SUCCESS;
}

API int ncclCommInitRank(Comm **out, int ranks, Id id, int rank) {
    Handle context = 0;
    if (out == nullptr || rank < 0 || rank >= ranks) return fail(INVALID_ARGUMENT, "no such rank");
    if (cuCtxGetCurrent(&context) != 0 || context == 0) return fail(CUDA_ERROR, "no device is current");
    ncclGroupStart();
    Comm *comm = new Comm;
    comm->id = std::string(id.name, strnlen(id.name, 90));
    comm->ranks = ranks;
    comm->rank = rank;
    comm->context = context;
    inits.push_back({out, comm});
    return ncclGroupEnd();
}

API int ncclSend(const void *from, std::size_t bytes, int type, int peer, Comm *comm, Handle stream) {
    return add({true, (Pointer)from, bytes, peer, comm, stream}, type);
}
API int ncclRecv(void *into, std::size_t bytes, int type, int peer, Comm *comm, Handle stream) {
    return add({false, (Pointer)into, bytes, peer, comm, stream}, type);
}

API int ncclCommGetAsyncError(Comm *comm, int *error) {
    std::lock_guard<std::mutex> guard(lock);
    if (comms.count(comm) == 0) return fail(INVALID_ARGUMENT, "no such communicator");
    return *error = comm->error, SUCCESS;
}

API int ncclCommDestroy(Comm *comm) {
    std::lock_guard<std::mutex> guard(lock);
    if (comms.erase(comm) == 0) return fail(INVALID_ARGUMENT, "no such communicator");
    for (auto &[peer, socket_] : comm->sockets) close(socket_);
    for (auto &[rank, other] : comm->here)
        if (other != comm) other->here.erase(comm->rank);
    delete comm;
    return SUCCESS;
}
API int ncclCommAbort(Comm *comm) { return ncclCommDestroy(comm); }

// ---- for tests ----

// out: groups, messages and bytes sent. They only grow.
API void shardlight_nccl_host_counters(std::uint64_t out[3]) {
    std::lock_guard<std::mutex> guard(lock);
    memcpy(out, counters, sizeof counters);
}
