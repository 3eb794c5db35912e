// out[i] = x[0]: one factor as one for each row, where a product takes no other kind.
// Writes 4 bytes a row.
// budget: registers 16, spills 0
#include "types.cuh"

extern "C" __global__ void __launch_bounds__(256) repeat_f32(const float* x, float* out, u64 n) {
    u64 i = thread_index();
    if (i < n) out[i] = x[0];
}
