// What C simulation without Vitis needs of hls::stream: an unbounded queue.
#pragma once

#include <cassert>
#include <queue>

namespace hls {

template <typename T, int DEPTH = 0>
class stream {
public:
    T read() {
        assert(!words.empty() && "a kernel reads no more than was written");
        T word = words.front();
        words.pop();
        return word;
    }
    void write(const T &word) { words.push(word); }
    bool empty() const { return words.empty(); }

private:
    std::queue<T> words;
};

} // namespace hls
