// A CUDA driver simulated on the CPU: as much of libcuda as src/device/cuda.rs calls, so that its host
// side runs where no card is. Build it as `libcuda.so` and put its folder into LD_LIBRARY_PATH.
//
// It is lazy on purpose: a stream's work is done only when somebody waits for it, so results that are
// read too early are seen to be wrong. What reaches outside the device's memory, or into that of the
// other card, is refused.
#include "kernels.h"

#include <elf.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

using Result = int;
const Result success = 0, invalid_value = 1, out_of_memory = 2, unavailable = 46, uncorrectable = 214,
             not_found = 500, lost = 719;

// What waits to be done; an event is the stream it was recorded on.
struct Stream {
    std::vector<std::function<void()>> work;
    void *context;
};
struct Event {
    Stream *stream = nullptr;
};

static std::recursive_mutex lock;
struct Block {
    size_t bytes;
    void *context;
};
static std::map<uint64_t, Block> device_memory;
// Two cards, each with a context.
static int contexts[2];
static thread_local void *current = contexts;
static std::vector<Stream *> streams;
using Guard = std::lock_guard<std::recursive_mutex>;

static void run(Stream *stream) {
    if (stream == nullptr) {
        return;
    }
    const auto work = std::exchange(stream->work, {});
    for (const auto &step : work) {
        step();
    }
}

static Result later(Stream *stream, std::function<void()> step) {
    if (stream == nullptr) {
        return invalid_value;
    }
    stream->work.push_back(std::move(step));
    return success;
}

static bool inside(uint64_t address, size_t bytes, const Stream *stream) {
    auto after = device_memory.upper_bound(address);
    if (after == device_memory.begin()) {
        return false;
    }
    const auto &[begin, block] = *--after;
    return stream != nullptr && block.context == stream->context &&
           address - begin <= block.bytes && bytes <= block.bytes - (address - begin);
}

// The card of that number is called so in this variable of the environment, "good,old": `old` ones are of a
// generation that the compiler has forgotten, `held` ones belong to a process that lets no other in, and
// `broken` ones have memory that cannot be relied on.
static bool is(int device, const char *what) {
    const char *const said = std::getenv("DSGD_SHIM_CARDS");
    const std::string cards = said == nullptr ? "" : said;
    const size_t comma = std::min(cards.find(','), cards.size());
    return (device == 0 ? cards.substr(0, comma) : cards.substr(std::min(comma + 1, cards.size()))) == what;
}

static void *pointer(uint64_t address) { return reinterpret_cast<void *>(address); }

extern "C" {

Result cuInit(unsigned int) { return success; }
Result cuDeviceGetCount(int *count) { return *count = 2, success; }
Result cuDeviceGet(int *device, int ordinal) {
    return *device = ordinal, ordinal == 0 || ordinal == 1 ? success : 101;
}
Result cuDeviceGetName(char *name, int size, int) {
    std::strncpy(name, "simulated card", size);
    return success;
}
Result cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    std::memset(uuid, 0, 16);
    return uuid[15] = static_cast<unsigned char>(device), success;
}
// Compute capability 9.0; above all: no memory pools.
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    const int major = 75;
    return *value = attribute != major ? 0 : is(device, "old") ? 6 : 9, success;
}
Result cuDevicePrimaryCtxRetain(void **context, int device) {
    return *context = contexts + device, is(device, "held") ? unavailable : success;
}
Result cuDevicePrimaryCtxRelease_v2(int) { return success; }
Result cuCtxGetCurrent(void **context) { return *context = current, success; }
Result cuCtxSetCurrent(void *context) { return current = context, success; }
Result cuCtxSynchronize() {
    Guard guard(lock);
    for (Stream *stream : streams) {
        run(stream);
    }
    return success;
}

// A module is its PTX or CUBIN, an ELF file that ends with the table of its sections or with that of its
// segments; the simulation has the kernels' own text compiled in.
Result cuModuleLoadData(void **module, const void *image) {
    if (is(current == contexts + 1, "broken")) {
        return uncorrectable;
    }
    const auto text = static_cast<const char *>(image);
    size_t bytes = std::strlen(text);
    if (std::memcmp(text, ELFMAG, SELFMAG) == 0) {
        Elf64_Ehdr head;
        std::memcpy(&head, image, sizeof head);
        bytes = std::max(head.e_shoff + head.e_shnum * head.e_shentsize,
                         head.e_phoff + head.e_phnum * head.e_phentsize);
    }
    *module = new std::string(text, bytes);
    return success;
}
Result cuModuleUnload(void *module) { return delete static_cast<std::string *>(module), success; }
Result cuModuleGetFunction(void **function, void *module, const char *name) {
    if (static_cast<std::string *>(module)->find(name) == std::string::npos) {
        return not_found;
    }
    for (const Kernel &kernel : kernels) {
        if (std::strcmp(name, kernel.name) == 0) {
            return *function = const_cast<Kernel *>(&kernel), success;
        }
    }
    return not_found;
}

Result cuStreamCreate(Stream **stream, unsigned int) {
    Guard guard(lock);
    streams.push_back(*stream = new Stream{{}, current});
    return success;
}
Result cuStreamDestroy_v2(Stream *stream) {
    Guard guard(lock);
    run(stream);
    std::erase(streams, stream);
    // Events still name it.
    return success;
}
Result cuStreamSynchronize(Stream *stream) {
    Guard guard(lock);
    return run(stream), success;
}
Result cuStreamWaitEvent(Stream *stream, Event *event, unsigned int) {
    Guard guard(lock);
    Stream *other = event->stream;
    return other == stream ? success : later(stream, [other] { run(other); });
}
Result cuEventCreate(Event **event, unsigned int) { return *event = new Event, success; }
Result cuEventDestroy_v2(Event *event) { return delete event, success; }
Result cuEventRecord(Event *event, Stream *stream) { return event->stream = stream, success; }
Result cuEventSynchronize(Event *event) {
    Guard guard(lock);
    return run(event->stream), success;
}

// Fresh memory is full of rubbish.
static void *rubbish(size_t bytes) { return std::memset(std::malloc(bytes), 0xa5, bytes); }
Result cuMemHostAlloc(void **host, size_t bytes, unsigned int) {
    return *host = rubbish(bytes), success;
}
Result cuMemFreeHost(void *host) { return std::free(host), success; }
// A card has as much memory as this, in all.
const size_t memory_bytes = size_t{4} << 30;
static size_t free_bytes(void *context) {
    size_t free = memory_bytes;
    for (const auto &[address, block] : device_memory) {
        free -= block.context == context ? block.bytes : 0;
    }
    return free;
}
Result cuMemGetInfo_v2(size_t *free, size_t *total) {
    Guard guard(lock);
    return *free = free_bytes(current), *total = memory_bytes, success;
}
Result cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    Guard guard(lock);
    if (bytes > free_bytes(current)) {
        return out_of_memory;
    }
    *address = reinterpret_cast<uint64_t>(rubbish(bytes));
    device_memory[*address] = {bytes, current};
    return success;
}
Result cuMemFree_v2(uint64_t address) {
    Guard guard(lock);
    std::free(pointer(address));
    return device_memory.erase(address) == 1 ? success : invalid_value;
}
Result cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, Stream *stream) {
    Guard guard(lock);
    return inside(to, bytes, stream) ? later(stream, [=] { std::memcpy(pointer(to), from, bytes); })
                             : invalid_value;
}
Result cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, Stream *stream) {
    Guard guard(lock);
    return inside(from, bytes, stream) ? later(stream, [=] { std::memcpy(to, pointer(from), bytes); })
                               : invalid_value;
}
Result cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Stream *stream) {
    Guard guard(lock);
    return inside(from, bytes, stream) && inside(to, bytes, stream)
               ? later(stream, [=] { std::memmove(pointer(to), pointer(from), bytes); })
               : invalid_value;
}
Result cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, Stream *stream) {
    Guard guard(lock);
    return inside(to, bytes, stream) ? later(stream, [=] { std::memset(pointer(to), value, bytes); })
                             : invalid_value;
}

// After as many launches as this variable of the environment says the cards are lost: every further call that
// could tell says so.
static bool is_lost() {
    static const char *const said = std::getenv("DSGD_SHIM_LAUNCHES");
    static long left = said == nullptr ? -1 : std::atol(said);
    return left == 0 || (left > 0 && --left == 0);
}

// Every kernel takes memory and three numbers, and some a table.
Result cuLaunchKernel(void *function, unsigned int blocks, unsigned int, unsigned int,
                      unsigned int threads, unsigned int, unsigned int, unsigned int shared,
                      Stream *stream, void **arguments, void **) {
    Guard guard(lock);
    if (is_lost()) {
        return lost;
    }
    uint64_t memory;
    std::array<unsigned int, 3> numbers;
    std::memcpy(&memory, arguments[0], sizeof memory);
    for (size_t i = 0; i < numbers.size(); i++) {
        std::memcpy(&numbers[i], arguments[1 + i], sizeof numbers[i]);
    }
    const auto kernel = static_cast<const Kernel *>(function);
    uint64_t table = memory;
    if (kernel->reads_table) {
        std::memcpy(&table, arguments[4], sizeof table);
    }
    if (!inside(memory, 1, stream) || !inside(table, 1, stream) || threads != kernel->block ||
        shared > sizeof dsgd_shared) {
        return invalid_value;
    }
    return later(stream, [=] {
        kernel->run(blocks, threads, pointer(memory), numbers.data(),
                    static_cast<unsigned int *>(pointer(table)));
    });
}

Result cuGetErrorName(Result, const char **text) { return *text = "simulated", success; }
Result cuGetErrorString(Result, const char **text) { return *text = "simulated error", success; }

} // extern "C"
