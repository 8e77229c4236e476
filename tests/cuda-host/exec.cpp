#include "exec.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#include "runner.h"

namespace cuda_host {
namespace {

struct Grid {
    const Launch *launch;
    std::uint64_t blocks;
    std::atomic<std::uint64_t> next{0};
    std::atomic<bool> failed{false};
    std::mutex lock;
    Fault fault;

    void work() {
        if (runner == nullptr) runner = std::make_unique<Runner>();
        Runner &r = *runner;
        r.fault = {};
        const Index &grid = launch->grid;
        while (!failed.load(std::memory_order_relaxed)) {
            std::uint64_t n = next.fetch_add(1, std::memory_order_relaxed);
            if (n >= blocks) break;
            r.run_block(*launch, {(unsigned)(n % grid.x), (unsigned)(n / grid.x % grid.y), (unsigned)(n / grid.x / grid.y)});
            if (r.fault.error != SUCCESS) {
                std::lock_guard<std::mutex> guard(lock);
                if (!failed.exchange(true)) fault = r.fault;
            }
        }
    }
};

// Threads that wait for a grid. Never destroyed: at the process's end they still wait.
struct Pool {
    std::mutex lock;
    std::condition_variable wake, done;
    Grid *grid = nullptr;
    std::uint64_t round = 0;
    unsigned workers = 0, busy = 0;

    Pool() {
        cpu_set_t set;
        unsigned cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
        for (unsigned i = 1; i < std::min(cpus, 8u); i++) {
            try {
                std::thread([this] { serve(); }).detach();
                workers++;
            } catch (const std::system_error &) {
                break;
            }
        }
    }

    void serve() {
        std::uint64_t seen = 0;
        std::unique_lock<std::mutex> guard(lock);
        for (;;) {
            wake.wait(guard, [&] { return round != seen; });
            seen = round;
            guard.unlock();
            grid->work();
            guard.lock();
            if (--busy == 0) done.notify_one();
        }
    }

    void run(Grid &all) {
        {
            std::lock_guard<std::mutex> guard(lock);
            grid = &all;
            round++;
            busy = workers;
        }
        wake.notify_all();
        all.work();
        std::unique_lock<std::mutex> guard(lock);
        done.wait(guard, [&] { return busy == 0; });
    }
};

}  // namespace

Fault run(const Launch &launch) {
    Grid grid;
    grid.launch = &launch;
    grid.blocks = (std::uint64_t)launch.grid.x * launch.grid.y * launch.grid.z;
    std::uint64_t threads = grid.blocks * launch.block.x * launch.block.y * launch.block.z;
    // Waking others takes longer than a small grid.
    if (grid.blocks == 1 || threads < 4096) {
        grid.work();
    } else {
        static Pool *pool = new Pool;
        pool->run(grid);
    }
    return grid.fault;
}

}  // namespace cuda_host
