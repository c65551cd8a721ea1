// XRT simulated over the C simulation of the kernels: as much of libxrt_coreutil as src/device/xrt.rs
// calls, so that its host side runs where no card is. `make libxrt_coreutil.so.2`, and its folder into
// LD_LIBRARY_PATH.
//
// A buffer has two sides, and only a sync copies between them; a run is done when somebody waits for
// it. So what is read too early, or not copied, is seen to be wrong.
#include "../align/align.h"
#include "../otp/otp.h"
#include "../pairhmm/pairhmm.h"
#include "../share/share.h"
#include "../xor/xor.h"

#include "columns.h"

#include <cstdarg>
#include <cstring>
#include <functional>
#include <map>
#include <string>

namespace {

const int completed = 4, refused = -1;

struct Buffer {
    std::vector<unsigned char> *host, *card;
    std::size_t at, bytes;
    bool whole;
};

struct Kernel {
    std::string name;
};

struct Run {
    Kernel *kernel;
    std::map<int, Buffer *> buffers;
    std::map<int, unsigned> numbers;
    bool started = false;
};

// Arguments of each kernel that are buffers; numbers follow.
const std::map<std::string, int> buffers_of = {
    {"xor_pad", 3}, {"share", 8}, {"otp", 5}, {"align", 2}, {"pairhmm", 2},
};

template <int BITS> std::vector<ap_uint<BITS>> words_of(const Run &run, int index, std::size_t words) {
    std::vector<ap_uint<BITS>> read(words);
    const Buffer &buffer = *run.buffers.at(index);
    for (std::size_t at = 0; at < words * BITS / 8; at++) {
        const unsigned byte = buffer.card->at(buffer.at + at);
        read[at * 8 / BITS].range(at * 8 % BITS + 7, at * 8 % BITS) = byte;
    }
    return read;
}

template <int BITS> void put(const Run &run, int index, const std::vector<ap_uint<BITS>> &words) {
    const Buffer &buffer = *run.buffers.at(index);
    for (std::size_t at = 0; at < words.size() * BITS / 8; at++) {
        buffer.card->at(buffer.at + at) =
            words[at * 8 / BITS].range(at * 8 % BITS + 7, at * 8 % BITS).to_uint();
    }
}

void run_xor(const Run &run) {
    const unsigned words = run.numbers.at(3);
    const column data = words_of<512>(run, 0, words), pad = words_of<512>(run, 1, words);
    column out(words);
    xor_pad(data.data(), pad.data(), out.data(), words);
    put(run, 2, out);
}

void run_share(const Run &run) {
    const unsigned words = run.numbers.at(8);
    std::vector<column> in, out(4, column(words));
    for (int i = 0; i < 4; i++) {
        in.push_back(words_of<512>(run, i, words));
        out[i] = words_of<512>(run, 4 + i, words);
    }
    share(in[0].data(), in[1].data(), in[2].data(), in[3].data(), out[0].data(), out[1].data(),
          out[2].data(), out[3].data(), words, run.numbers.at(9), run.numbers.at(10));
    for (int i = 0; i < 4; i++) {
        put(run, 4 + i, out[i]);
    }
}

void run_otp(const Run &run) {
    const unsigned bytes = run.numbers.at(5), lanes = run.numbers.at(6), blocks = (bytes + 15) / 16;
    const auto data = words_of<128>(run, 0, blocks), pad = words_of<128>(run, 1, blocks);
    const auto power = words_of<128>(run, 2, 1);
    std::vector<block> out(blocks), sums(lanes);
    otp(data.data(), pad.data(), power.data(), out.data(), sums.data(), bytes, lanes,
        run.numbers.at(7));
    put(run, 3, out);
    put(run, 4, sums);
}

template <void (*kernel)(const unsigned int *, unsigned int *, unsigned, unsigned)>
void run_jobs(const Run &run) {
    const auto memory = [&](int index) {
        const Buffer &buffer = *run.buffers.at(index);
        return reinterpret_cast<unsigned int *>(buffer.card->data() + buffer.at);
    };
    kernel(memory(0), memory(1), run.numbers.at(2), run.numbers.at(3));
}

const std::map<std::string, void (*)(const Run &)> kernels = {
    {"xor_pad", run_xor},           {"share", run_share},
    {"otp", run_otp},               {"align", run_jobs<align>},
    {"pairhmm", run_jobs<pairhmm>},
};

bool inside(const Buffer *buffer, std::size_t bytes, std::size_t at) {
    return at <= buffer->bytes && bytes <= buffer->bytes - at;
}

} // namespace

extern "C" {

void *xrtDeviceOpen(unsigned index) { return index == 0 ? new char : nullptr; }
int xrtDeviceClose(void *device) { return delete static_cast<char *>(device), 0; }
int xrtDeviceLoadXclbinFile(void *, const char *image) { return *image == 0 ? refused : 0; }
int xrtDeviceGetXclbinUUID(void *, unsigned char *uuid) { return std::memset(uuid, 7, 16), 0; }

void *xrtPLKernelOpen(void *, const unsigned char *uuid, const char *name) {
    return uuid[15] == 7 && kernels.count(name) == 1 ? new Kernel{name} : nullptr;
}
int xrtKernelClose(void *kernel) { return delete static_cast<Kernel *>(kernel), 0; }
int xrtKernelArgGroupId(void *, int) { return 0; }

void *xrtBOAlloc(void *, std::size_t bytes, unsigned long, unsigned) {
    const auto side = [&](unsigned char rubbish) {
        return new std::vector<unsigned char>(bytes, rubbish);
    };
    return new Buffer{side(0xa5), side(0x5a), 0, bytes, true};
}
void *xrtBOSubAlloc(void *whole, std::size_t bytes, std::size_t at) {
    const auto parent = static_cast<Buffer *>(whole);
    if (at % 4096 != 0 || !inside(parent, bytes, at)) {
        return nullptr;
    }
    return new Buffer{parent->host, parent->card, at, bytes, false};
}
int xrtBOFree(void *handle) {
    const auto buffer = static_cast<Buffer *>(handle);
    if (buffer->whole) {
        delete buffer->host;
        delete buffer->card;
    }
    return delete buffer, 0;
}
int xrtBOSync(void *handle, int direction, std::size_t bytes, std::size_t at) {
    const auto buffer = static_cast<Buffer *>(handle);
    if (!inside(buffer, bytes, at)) {
        return refused;
    }
    auto host = buffer->host->data() + buffer->at + at, card = buffer->card->data() + buffer->at + at;
    return std::memcpy(direction == 0 ? card : host, direction == 0 ? host : card, bytes), 0;
}
int xrtBOWrite(void *handle, const void *from, std::size_t bytes, std::size_t at) {
    const auto buffer = static_cast<Buffer *>(handle);
    if (!inside(buffer, bytes, at)) {
        return refused;
    }
    return std::memcpy(buffer->host->data() + buffer->at + at, from, bytes), 0;
}
int xrtBORead(void *handle, void *to, std::size_t bytes, std::size_t at) {
    const auto buffer = static_cast<Buffer *>(handle);
    if (!inside(buffer, bytes, at)) {
        return refused;
    }
    return std::memcpy(to, buffer->host->data() + buffer->at + at, bytes), 0;
}

void *xrtRunOpen(void *kernel) { return new Run{static_cast<Kernel *>(kernel), {}, {}}; }
int xrtRunSetArg(void *handle, int index, ...) {
    const auto run = static_cast<Run *>(handle);
    va_list arguments;
    va_start(arguments, index);
    if (index < buffers_of.at(run->kernel->name)) {
        run->buffers[index] = static_cast<Buffer *>(va_arg(arguments, void *));
    } else {
        run->numbers[index] = va_arg(arguments, unsigned);
    }
    va_end(arguments);
    return 0;
}
int xrtRunStart(void *run) { return static_cast<Run *>(run)->started = true, 0; }
int xrtRunWaitFor(void *handle, unsigned) {
    const auto run = static_cast<Run *>(handle);
    if (!run->started) {
        return refused;
    }
    kernels.at(run->kernel->name)(*run);
    return completed;
}
int xrtRunClose(void *run) { return delete static_cast<Run *>(run), 0; }

} // extern "C"
