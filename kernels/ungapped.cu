// Mismatches of reads laid on a reference, a thread a place. The same steps as shaders/ungapped.wgsl;
// defined by src/kernel/ungapped.rs.
#ifndef DSGD_CUH
#include "dsgd.cuh"
#endif

namespace dsgd_ungapped {

const unsigned int header_words = 8, entry_words = 4;

// 32 bases of one plane of the reference, `shift` bases into group `group`. A word of 64 bases has its
// three planes after each other, two groups each.
__device__ inline unsigned int plane(const unsigned int *genome, unsigned int group,
                                     unsigned int shift, unsigned int which) {
    const unsigned int next = group + 1;
    const size_t here_at = static_cast<size_t>(group >> 1) * 6 + 2 * which + (group & 1u);
    const size_t next_at = static_cast<size_t>(next >> 1) * 6 + 2 * which + (next & 1u);
    return genome[here_at] >> shift | (genome[next_at] << 1) << (31 - shift);
}

} // namespace dsgd_ungapped

// `table`: the reference, `memory[1]` words of 64 bases. An entry: where the read's words begin in the
// data, how many of 64 bases there are, and where it is laid. A result: the number of mismatches, then
// a word of marks for each word of 32 bases.
extern "C" __global__ void ungapped(unsigned int *memory, unsigned int jobs, unsigned int output_at,
                                    unsigned int, const unsigned int *table) {
    using namespace dsgd_ungapped;
    const unsigned int job = dsgd_index();
    if (job >= jobs) {
        return;
    }
    const unsigned int *entry = memory + header_words + static_cast<size_t>(entry_words) * job;
    const unsigned int *read = memory + header_words + static_cast<size_t>(entry_words) * jobs + entry[0];
    const unsigned int words = entry[1], position = entry[2];
    unsigned int *result = memory + output_at + static_cast<size_t>(memory[0]) * job;
    const unsigned int first = position / 64;
    const bool outside = first > memory[1] || words + 1 > memory[1] - first;
    unsigned int count = 0;
    for (unsigned int i = 0; i < 2 * words; i++) {
        unsigned int marks = 0xffffffffu;
        if (!outside) {
            const unsigned int *planes = read + 8 * (i >> 1) + (i & 1u);
            const unsigned int group = position / 32 + i, shift = position & 31u;
            const unsigned int low = plane(table, group, shift, 0) ^ planes[0];
            const unsigned int high = plane(table, group, shift, 1) ^ planes[2];
            const unsigned int unknown = plane(table, group, shift, 2) | planes[4];
            marks = (low | high | unknown) & planes[6];
        }
        count += __popc(marks);
        result[1 + i] = marks;
    }
    result[0] = outside ? 0xffffffffu : count;
}
