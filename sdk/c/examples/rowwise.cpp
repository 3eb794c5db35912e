/*
 * A complete backend in C++17: dynamic rowwise scaling, E4M3 everywhere, scales rounded down to powers of two.
 *
 * Each GEMM has one scale a row of either operand, as it contracts it: x and dy are cast by row for y and dx, and by column
 * for dW; W by row for y, and by column for dx. Casts and GEMMs are the engine's, so this is the recipe alone. Exceptions
 * become errors of the call (fp8flow_guard).
 *
 *     c++ -std=c++17 -O2 -fPIC -shared -I../include rowwise.cpp -o librowwise.so
 */
#include "fp8flow_plugin.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

/* An error with the status to return. */
struct failure : std::runtime_error {
    fp8flow_status status;
    failure(fp8flow_status status, const std::string &message) : std::runtime_error(message), status(status) {}
};

/* Runs a body; what it throws becomes the error of the call. */
template <class Body>
fp8flow_status guarded(fp8flow_error *error, Body body) noexcept {
    return fp8flow_guard(error, [&]() -> fp8flow_status {
        try {
            body();
            return FP8FLOW_OK;
        } catch (const failure &failed) {
            std::strncpy(error->message, failed.what(), sizeof error->message - 1);
            return failed.status;
        }
    });
}

constexpr std::uint64_t aligned(std::uint64_t bytes) { return (bytes + 63) / 64 * 64; }

/* A dense CPU tensor of one or two dimensions. */
fp8flow_tensor tensor(const void *data, std::uint32_t dtype, std::uint64_t rows, std::uint64_t cols = 0) {
    fp8flow_tensor t{};
    t.data = const_cast<void *>(data);
    t.dtype = dtype;
    t.rank = cols == 0 ? 1 : 2;
    t.shape[0] = rows;
    t.shape[1] = cols == 0 ? 1 : cols;
    t.shape[2] = t.shape[3] = 1;
    t.strides[0] = cols == 0 ? 1 : static_cast<std::int64_t>(cols);
    t.strides[1] = cols == 0 ? 0 : 1;
    return t;
}

void expect(const char *name, const fp8flow_tensor &x, std::uint64_t rows, std::uint64_t cols) {
    if (x.dtype != FP8FLOW_F32 && x.dtype != FP8FLOW_BF16)
        throw failure(FP8FLOW_UNSUPPORTED, std::string(name) + ": expected f32 or bf16");
    if (x.rank != 2 || x.shape[0] != rows || x.shape[1] != cols)
        throw failure(FP8FLOW_INVALID, std::string(name) + ": expected " + std::to_string(rows) + " rows of " +
                                           std::to_string(cols) + " columns");
}

/* Codes with one scale a row or a column, in memory of somebody's. */
struct operand {
    std::uint8_t *codes;
    float *scales;
    std::uint64_t rows, cols;
    std::uint32_t axis;

    static std::uint64_t bytes(std::uint64_t rows, std::uint64_t cols, std::uint32_t axis) {
        return aligned(rows * cols) + aligned(4 * (axis == FP8FLOW_PER_ROW ? rows : cols));
    }

    operand(void *memory, std::size_t len, std::uint64_t rows, std::uint64_t cols, std::uint32_t axis)
        : codes(static_cast<std::uint8_t *>(memory)), scales(nullptr), rows(rows), cols(cols), axis(axis) {
        if (len < bytes(rows, cols, axis)) throw failure(FP8FLOW_INVALID, "memory on loan is too small");
        scales = reinterpret_cast<float *>(codes + aligned(rows * cols));
    }

    std::uint64_t count() const { return axis == FP8FLOW_PER_ROW ? rows : cols; }
};

struct recipe {
    const fp8flow_host *host;
    std::uint64_t generation = 0;

    explicit recipe(const fp8flow_host *host) : host(host) {}
};

class linear {
    recipe &owner;
    const std::uint64_t k, n;
    std::vector<std::uint64_t> by_row, by_col; /* the weight's two casts; words, so that they are aligned */
    bool made = false;
    std::uint64_t made_in = 0;

    static std::vector<std::uint64_t> words(std::uint64_t bytes) { return std::vector<std::uint64_t>(bytes / 8); }

    operand weight(std::vector<std::uint64_t> &memory, std::uint32_t axis) {
        return operand(memory.data(), memory.size() * 8, n, k, axis);
    }

    static float magnitude(const fp8flow_tensor &x, std::uint64_t i) {
        if (x.dtype == FP8FLOW_F32) return std::fabs(static_cast<const float *>(x.data)[i]);
        const std::uint32_t bits = static_cast<std::uint32_t>(static_cast<const std::uint16_t *>(x.data)[i]) << 16;
        float value;
        std::memcpy(&value, &bits, sizeof value);
        return std::fabs(value);
    }

    /* `which` counts as input (0), weight (1) or gradient (2). */
    void cast(int which, const fp8flow_tensor &x, const operand &to, bool telemetry) {
        fp8flow_error error{};
        error.size = sizeof error;
        fp8flow_quantize call{};
        call.size = sizeof call;
        call.x = x;
        call.format = FP8FLOW_E4M3;
        call.axis = to.axis;
        call.power_of_two = 1;
        call.codes = tensor(to.codes, FP8FLOW_E4M3, to.rows, to.cols);
        call.scales = tensor(to.scales, FP8FLOW_F32, to.count());
        fp8flow_status status = owner.host->quantize(owner.host, &call, &error);
        if (status != FP8FLOW_OK) throw failure(status, error.message);
        /* An infinite maximum has the scale 0, a NaN one NaN. */
        for (std::uint64_t i = 0; i < to.count(); i++)
            counters.non_finite[which] += !(to.scales[i] > 0 && std::isfinite(to.scales[i]));
        if (!telemetry) return;
        counters.cast[which] += to.rows * to.cols;
        float amax = 0;
        for (std::uint64_t i = 0; i < to.rows * to.cols; i++) {
            const float here = magnitude(x, i);
            counters.underflowed[which] += (to.codes[i] & 0x7f) == 0 && here != 0;
            if (std::isfinite(here) && here > amax) amax = here;
        }
        counters.amax[which] = amax;
    }

    void multiply(const operand &a, bool transpose_a, const operand &b, bool transpose_b, const fp8flow_tensor &out,
                  std::uint32_t accumulate) {
        fp8flow_error error{};
        error.size = sizeof error;
        fp8flow_scaled_gemm call{};
        call.size = sizeof call;
        call.a = tensor(a.codes, FP8FLOW_E4M3, a.rows, a.cols);
        call.transpose_a = transpose_a;
        call.scale_a = tensor(a.scales, FP8FLOW_F32, a.count());
        call.b = tensor(b.codes, FP8FLOW_E4M3, b.rows, b.cols);
        call.transpose_b = transpose_b;
        call.scale_b = tensor(b.scales, FP8FLOW_F32, b.count());
        call.out = out;
        call.accumulate = accumulate;
        fp8flow_status status = owner.host->scaled_gemm(owner.host, &call, &error);
        if (status != FP8FLOW_OK) throw failure(status, error.message);
    }

    /* The weight is cast once an optimizer step. */
    void refresh(const fp8flow_tensor &w, bool telemetry) {
        if (made && made_in == owner.generation) return;
        expect("weight", w, n, k);
        cast(1, w, weight(by_row, FP8FLOW_PER_ROW), telemetry);
        cast(1, w, weight(by_col, FP8FLOW_PER_COL), false);
        made = true;
        made_in = owner.generation;
    }

  public:
    fp8flow_counters counters{};

    linear(recipe &owner, std::uint64_t k, std::uint64_t n)
        : owner(owner), k(k), n(n), by_row(words(operand::bytes(n, k, FP8FLOW_PER_ROW))),
          by_col(words(operand::bytes(n, k, FP8FLOW_PER_COL))) {}

    void memory(std::uint64_t tokens, fp8flow_memory &memory) const {
        memory.shared_saved = operand::bytes(tokens, k, FP8FLOW_PER_COL);   /* for dW */
        memory.shared_forward = operand::bytes(tokens, k, FP8FLOW_PER_ROW); /* for y */
        memory.backward_scratch = operand::bytes(tokens, n, FP8FLOW_PER_ROW) + operand::bytes(tokens, n, FP8FLOW_PER_COL);
        memory.own = 8 * (by_row.size() + by_col.size());
    }

    void forward(const fp8flow_forward &call) {
        const std::uint64_t m = call.x.shape[0];
        expect("x", call.x, m, k);
        expect("y", call.y, m, n);
        if (call.y.dtype != call.x.dtype) throw failure(FP8FLOW_INVALID, "y has another type than x");
        refresh(call.weight, call.telemetry);
        operand x(call.group_forward.data, call.group_forward.len, m, k, FP8FLOW_PER_ROW);
        if (!call.group_ready && m > 0) {
            cast(0, call.x, x, call.telemetry);
            if (call.pass != FP8FLOW_EVAL)
                cast(0, call.x, operand(call.group_saved.data, call.group_saved.len, m, k, FP8FLOW_PER_COL), false);
        }
        if (m == 0) return;
        multiply(x, false, weight(by_row, FP8FLOW_PER_ROW), false, call.y, 0);
        counters.fprop++;
    }

    void backward(const fp8flow_backward &call) {
        const std::uint64_t m = call.dy.shape[0];
        expect("dy", call.dy, m, n);
        expect("dw", call.dw, n, k);
        if (call.dx != nullptr) {
            expect("dx", *call.dx, m, k);
            if (call.dx->dtype != call.dy.dtype) throw failure(FP8FLOW_INVALID, "dx has another type than dy");
        }
        operand x(const_cast<std::uint8_t *>(call.group_saved.data), call.group_saved.len, m, k, FP8FLOW_PER_COL);
        const std::uint64_t rows = operand::bytes(m, n, FP8FLOW_PER_ROW);
        if (call.scratch.len < rows) throw failure(FP8FLOW_INVALID, "scratch memory is too small");
        operand dy(call.scratch.data, rows, m, n, FP8FLOW_PER_ROW);
        operand dy_by_col(call.scratch.data + rows, call.scratch.len - rows, m, n, FP8FLOW_PER_COL);
        refresh(call.weight, call.telemetry);
        if (m == 0) {
            if (!call.accumulate_dw) std::memset(call.dw.data, 0, n * k * sizeof(float));
            return;
        }
        if (call.dx != nullptr) {
            cast(2, call.dy, dy, call.telemetry);
            multiply(dy, false, weight(by_col, FP8FLOW_PER_COL), true, *call.dx, call.accumulate_dx);
            counters.dgrad++;
        }
        cast(2, call.dy, dy_by_col, call.telemetry && call.dx == nullptr);
        multiply(dy_by_col, true, x, true, call.dw, call.accumulate_dw);
        counters.wgrad++;
    }
};

bool fits(const fp8flow_layer &layer) {
    return layer.in_features > 0 && layer.out_features > 0 && layer.in_features % 16 == 0 &&
           layer.out_features % 16 == 0;
}

fp8flow_status start(const fp8flow_host *, void **, fp8flow_error *) noexcept { return FP8FLOW_OK; }

fp8flow_status recipe_new(void *, const fp8flow_host *host, const char *name, const fp8flow_options *, void **made,
                          fp8flow_error *error) noexcept {
    return guarded(error, [&] {
        if (std::string(name) != "rowwise") throw failure(FP8FLOW_INVALID, std::string("no recipe ") + name);
        *made = new recipe(host);
    });
}

void recipe_free(void *object) noexcept { delete static_cast<recipe *>(object); }

fp8flow_status recipe_describe(void *, const fp8flow_text_sink *json, fp8flow_error *) noexcept {
    static const char text[] = R"({"backend":"cpp-rowwise","recipe":"rowwise","format":"e4m3","scaling":"dynamic",)"
                               R"("axis":"row","rule":"amax_pow2"})";
    json->write(json, text, sizeof text - 1);
    return FP8FLOW_OK;
}

fp8flow_status recipe_decide(void *, const fp8flow_layer *layer, fp8flow_decision *decision, fp8flow_error *) noexcept {
    decision->fp8 = fits(*layer);
    for (auto &gemms : decision->fp8_gemms) gemms = decision->fp8;
    std::snprintf(decision->reason, sizeof decision->reason, "%s",
                  decision->fp8 ? "rowwise e4m3" : "in_features and out_features are not multiples of 16");
    return FP8FLOW_OK;
}

fp8flow_status recipe_linear(void *object, const fp8flow_layer *layer, void **made, fp8flow_error *error) noexcept {
    return guarded(error, [&] {
        if (!fits(*layer)) throw failure(FP8FLOW_INVALID, "in_features and out_features are not multiples of 16");
        *made = new linear(*static_cast<recipe *>(object), layer->in_features, layer->out_features);
    });
}

fp8flow_status recipe_on(void *object, std::uint32_t event, fp8flow_error *) noexcept {
    if (event == FP8FLOW_WEIGHTS_CHANGED) static_cast<recipe *>(object)->generation++;
    return FP8FLOW_OK;
}

void linear_free(void *object) noexcept { delete static_cast<linear *>(object); }

fp8flow_status linear_memory(void *object, std::uint64_t tokens, fp8flow_memory *memory, fp8flow_error *) noexcept {
    static_cast<const linear *>(object)->memory(tokens, *memory);
    return FP8FLOW_OK;
}

fp8flow_status linear_forward(void *object, const fp8flow_forward *call, fp8flow_error *error) noexcept {
    return guarded(error, [&] { static_cast<linear *>(object)->forward(*call); });
}

fp8flow_status linear_backward(void *object, const fp8flow_backward *call, fp8flow_error *error) noexcept {
    return guarded(error, [&] { static_cast<linear *>(object)->backward(*call); });
}

/* The caller's struct may be shorter than ours, but for its size. */
fp8flow_status linear_counters(void *object, fp8flow_counters *counters, fp8flow_error *) noexcept {
    fp8flow_counters mine = static_cast<const linear *>(object)->counters;
    mine.size = counters->size;
    std::memcpy(counters, &mine, counters->size < sizeof mine ? counters->size : sizeof mine);
    return FP8FLOW_OK;
}

fp8flow_status quantize(void *, const fp8flow_host *host, const fp8flow_quantize *call, fp8flow_error *error) noexcept {
    return host->quantize(host, call, error);
}

fp8flow_status scaled_gemm(void *, const fp8flow_host *host, const fp8flow_scaled_gemm *call,
                           fp8flow_error *error) noexcept {
    return host->scaled_gemm(host, call, error);
}

const fp8flow_plugin functions = [] {
    fp8flow_plugin f{};
    f.size = sizeof f;
    f.abi = FP8FLOW_C_ABI;
    f.recipes = R"([{"name": "rowwise", "about": "One dynamic power-of-two scale a row, E4M3 everywhere.", "options": []}])";
    f.start = start;
    f.recipe_new = recipe_new;
    f.recipe_free = recipe_free;
    f.recipe_describe = recipe_describe;
    f.recipe_decide = recipe_decide;
    f.recipe_linear = recipe_linear;
    f.recipe_on = recipe_on;
    f.linear_free = linear_free;
    f.linear_memory = linear_memory;
    f.linear_forward = linear_forward;
    f.linear_backward = linear_backward;
    f.linear_counters = linear_counters;
    f.quantize = quantize;
    f.scaled_gemm = scaled_gemm;
    return f;
}();

} // namespace

FP8FLOW_PLUGIN(functions, "cpp-rowwise", "0.1.0", "Dynamic rowwise scaling in C++.", "MIT OR Apache-2.0",
               "[\"rowwise\"]");
