// Attention and its gradients in f32: to compare with, not to be fast. A warp takes a row at a time, a lane a score of
// 32 on end, and then elements of the row. Any width of a head up to 256.
// Specification: ops/attention, bit for bit.
// Reads k and v, or q and dout, once for every row that meets them.
// budget: registers 80, spills 0
#include "attention.cuh"
#include "lanes.cuh"
#include "math.cuh"

// Elements of a row that a lane keeps: lane, lane + 32, ...
const int SHARE = 8;

__device__ inline float dot(const float* x, const float* y, u32 dim) {
    float sum = 0.0f;
    for (u32 i = 0; i < dim; i++) sum = fmaf(x[i], y[i], sum);
    return sum;
}

__device__ inline float warp_max(float x) {
    for (int other = 16; other > 0; other /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, other));
    return x;
}

// sums += the weight of lane j * rows[j], for j < count.
__device__ inline void gather(float (&sums)[SHARE], float weight, const float* rows, u64 stride, u32 count, u32 dim) {
    for (u32 j = 0; j < count; j++, rows += stride) {
        float factor = __shfl_sync(0xffffffffu, weight, j);
        for (int i = 0; i < SHARE; i++) {
            u32 at = threadIdx.x % 32 + i * 32;
            if (at < dim) sums[i] = fmaf(factor, rows[at], sums[i]);
        }
    }
}

__device__ inline void put(const float (&sums)[SHARE], float factor, float* row, u32 dim) {
    for (int i = 0; i < SHARE; i++) {
        u32 at = threadIdx.x % 32 + i * 32;
        if (at < dim) row[at] = narrow<float>(sums[i] * factor);
    }
}

extern "C" __global__ void __launch_bounds__(128) attention_forward_f32(
    const float* q, const float* k, const float* v, float* out, float* lse, const Work* work, u32 heads, u32 kv_heads,
    u32 dim, u32 tokens, float scale) {
    Work own = work[blockIdx.y];
    u32 head = blockIdx.x, lane = threadIdx.x % 32;
    u64 wide = u64(heads) * dim, thin = u64(kv_heads) * dim, kv = own.start * thin + head / (heads / kv_heads) * dim;
    for (u32 query = own.first + threadIdx.x / 32; query < least(own.first + QUERIES, own.len); query += WARPS) {
        u64 at = (own.start + query) * wide + head * dim;
        float mixed[SHARE] = {}, sum = 0.0f, top = -infinity();
        // Two scores a lane: the CPU fades older weights once for every 64 keys, and adds new ones in the keys' order.
        for (u32 first = 0; first <= query; first += KEYS) {
            float scores[2];
            for (u32 half = 0; half < 2; half++) {
                u32 key = first + half * 32 + lane;
                scores[half] = key <= query ? dot(k + kv + key * thin, q + at, dim) * scale : -infinity();
            }
            float most = fmaxf(top, warp_max(fmaxf(scores[0], scores[1]))), fade = exp_exact(top - most);
            top = most;
            sum *= fade;
            for (int i = 0; i < SHARE; i++) mixed[i] *= fade;
            for (u32 half = 0; half < 2 && first + half * 32 <= query; half++) {
                u32 key = first + half * 32, count = least(query + 1 - key, 32);
                float weight = exp_exact(scores[half] - top);
                for (u32 j = 0; j < count; j++) sum += __shfl_sync(0xffffffffu, weight, j);
                gather(mixed, weight, v + kv + key * thin, thin, count, dim);
            }
        }
        put(mixed, 1.0f / sum, out + at, dim);
        if (lane == 0) lse[u64(head) * tokens + own.start + query] = top + float(ln_exact(double(sum)));
    }
}

extern "C" __global__ void __launch_bounds__(256) attention_delta_f32(
    const float* dout, const float* out, float* delta, u32 heads, u32 dim, u32 tokens) {
    u64 row = thread_index() / LANES, rows = u64(tokens) * heads;
    float sum = 0.0f;
    if (row < rows) {
        for (u32 i = threadIdx.x % LANES; i < dim; i += LANES) sum = fmaf(dout[row * dim + i], out[row * dim + i], sum);
    }
    sum = tree(sum);
    if (row < rows && threadIdx.x % LANES == 0) delta[row % heads * tokens + row / heads] = sum;
}

extern "C" __global__ void __launch_bounds__(128) attention_dq_f32(
    const float* q, const float* k, const float* v, const float* dout, const float* lse, const float* delta, float* dq,
    const Work* work, u32 heads, u32 kv_heads, u32 dim, u32 tokens, float scale) {
    Work own = work[blockIdx.y];
    u32 head = blockIdx.x, lane = threadIdx.x % 32;
    u64 wide = u64(heads) * dim, thin = u64(kv_heads) * dim, kv = own.start * thin + head / (heads / kv_heads) * dim;
    for (u32 query = own.first + threadIdx.x / 32; query < least(own.first + QUERIES, own.len); query += WARPS) {
        u64 at = (own.start + query) * wide + head * dim, place = u64(head) * tokens + own.start + query;
        float grown[SHARE] = {};
        for (u32 first = 0; first <= query; first += 32) {
            float dscore = 0.0f;
            if (first + lane <= query) {
                u64 row = kv + (first + lane) * thin;
                float weight = exp_exact(dot(k + row, q + at, dim) * scale - lse[place]);
                dscore = weight * (dot(v + row, dout + at, dim) - delta[place]) * scale;
            }
            gather(grown, dscore, k + kv + first * thin, thin, least(query + 1 - first, 32), dim);
        }
        put(grown, 1.0f, dq + at, dim);
    }
}

extern "C" __global__ void __launch_bounds__(128) attention_dkv_f32(
    const float* q, const float* k, const float* v, const float* dout, const float* lse, const float* delta, float* dk,
    float* dv, const Work* work, u32 heads, u32 kv_heads, u32 dim, u32 tokens, float scale) {
    Work own = work[blockIdx.y];
    u32 group = heads / kv_heads, lane = threadIdx.x % 32;
    u64 wide = u64(heads) * dim, thin = u64(kv_heads) * dim;
    for (u32 key = own.first + threadIdx.x / 32; key < least(own.first + KEYS, own.len); key += WARPS) {
        u64 at = (own.start + key) * thin + blockIdx.x * dim;
        float dks[SHARE] = {}, dvs[SHARE] = {};
        for (u32 head = blockIdx.x * group; head < (blockIdx.x + 1) * group; head++) {
            for (u32 first = key; first < own.len; first += 32) {
                u64 rows = (own.start + first) * wide + head * dim;
                float weight = 0.0f, dscore = 0.0f;
                if (first + lane < own.len) {
                    u64 row = rows + lane * wide, place = u64(head) * tokens + own.start + first + lane;
                    weight = exp_exact(dot(q + row, k + at, dim) * scale - lse[place]);
                    dscore = weight * (dot(dout + row, v + at, dim) - delta[place]) * scale;
                }
                u32 count = least(own.len - first, 32);
                gather(dvs, weight, dout + rows, wide, count, dim);
                gather(dks, dscore, q + rows, wide, count, dim);
            }
        }
        put(dks, 1.0f, dk + at, dim);
        put(dvs, 1.0f, dv + at, dim);
    }
}
