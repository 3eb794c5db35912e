/*
 * fp8flow_plugin.h: an FP8 backend for fp8flow in C99 or C++17.
 *
 * A backend is a shared library that brings FP8 recipes. Its author fills one table of functions, fp8flow_plugin, and
 * says with FP8FLOW_PLUGIN what it is; the engine finds the library, reads what it says of itself without opening it,
 * opens it and calls the table. This is the contract of the Rust SDK (fp8flow-sdk) with plain structs in place of traits:
 *
 *   backend   the library as a whole         start, stop
 *   recipe    one configured recipe of a run  recipe_new, _describe, _decide, _linear, _on, _state, _restore, _free
 *   linear    one linear layer y = x.W^T      linear_memory, _forward, _backward, _counters, _free
 *
 * The protocol of one micro-batch:
 *
 *   forward(TRAIN) of every layer, then FP8FLOW_FORWARD_DONE
 *     per block, last to first: [forward(RECOMPUTE) of its layers], then backward of its layers
 *     then FP8FLOW_BACKWARD_DONE
 *   after the last micro-batch of a step: the optimizer, then FP8FLOW_WEIGHTS_CHANGED
 *   evaluation: forward(EVAL) of every layer; leaves no trace in the recipe's state
 *
 * Rules:
 *
 *   - Whoever allocates frees. Pointers that a call receives are valid until it returns, and no longer. Exceptions:
 *     a host, until what was made with it is freed; a backend, until its recipes are; a recipe, until its layers are.
 *   - Structs that start with `size` grow at their end. The caller sets `size`; a function touches no field that lies
 *     beyond it (FP8FLOW_HAS) and never assigns such a struct as a whole. The others never change.
 *   - Results are functions of the arguments and the recipe's state alone: no clock, no thread count, no order of tasks.
 *   - A plugin starts no threads: fp8flow_host lends them. The engine may call different recipes from different threads
 *     at the same time, and a recipe with its layers from one thread after another.
 *   - Nothing unwinds out of a function: no exception, no longjmp. C++: fp8flow_guard.
 *   - The floating-point environment is left as it was found (no flush-to-zero, no other rounding).
 *   - Any number of tokens M is fine, also 0: then nothing is multiplied or counted, and dW is zero (or left alone, where
 *     it is accumulated).
 */
#ifndef FP8FLOW_PLUGIN_H
#define FP8FLOW_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The number of this contract. It changes when something changes other than by growing. */
#define FP8FLOW_C_ABI 1
/* The SDK that this header came with; for information. */
#define FP8FLOW_SDK "0.1.0"

/* Whether the struct behind a pointer, which starts with `size`, has a field. */
#define FP8FLOW_HAS(type, pointer, field) \
    ((pointer)->size >= offsetof(type, field) + sizeof((pointer)->field))

/* What a function returns. */
typedef uint32_t fp8flow_status;
enum {
    FP8FLOW_OK = 0,
    FP8FLOW_INTERNAL = 1,    /* anything that went wrong inside */
    FP8FLOW_INVALID = 2,     /* an option, shape or type that the backend does not take */
    FP8FLOW_UNSUPPORTED = 3, /* what the backend could do, but not here (device, layout) */
    FP8FLOW_PROTOCOL = 4,    /* a call out of order: a bug of the engine */
    FP8FLOW_CANCELLED = 5    /* the host said so */
};

/* Filled by a function that does not return FP8FLOW_OK: text in UTF-8, ended by a zero. */
typedef struct fp8flow_error {
    size_t size;
    char message[1024]; /* what was expected and what was found */
    char help[512];     /* what the person in front of the screen can do; may stay empty */
} fp8flow_error;

/* Element types. There may be others one day: refuse what you do not know. */
enum {
    FP8FLOW_F32 = 1,
    FP8FLOW_BF16 = 2,
    FP8FLOW_E4M3 = 3, /* E4M3FN codes */
    FP8FLOW_E5M2 = 4
};

/* Where memory lies. Never changes. */
typedef struct fp8flow_device {
    uint32_t kind;    /* 0: CPU, 1: CUDA */
    uint32_t ordinal; /* which one of its kind */
    uint64_t stream;  /* the CUstream that the contents are ordered by; 0 on the CPU */
} fp8flow_device;

/* A tensor of up to four dimensions. It may be strided or misaligned: look, and refuse what you do not take. Never changes. */
typedef struct fp8flow_tensor {
    void *data;         /* address of element 0 */
    uint32_t dtype;     /* element type */
    uint32_t rank;      /* dimensions in use, 1 to 4 */
    uint64_t shape[4];  /* elements a dimension */
    int64_t strides[4]; /* elements from one index to the next */
    fp8flow_device device;
} fp8flow_tensor;

/* Memory on loan; it starts at a multiple of 64. Never changes. */
typedef struct fp8flow_bytes {
    uint8_t *data;
    size_t len;
} fp8flow_bytes;

/* The same, to read. Never changes. */
typedef struct fp8flow_const_bytes {
    const uint8_t *data;
    size_t len;
} fp8flow_const_bytes;

/* A tensor with a name. Never changes. */
typedef struct fp8flow_named_tensor {
    const char *name;
    fp8flow_tensor tensor;
} fp8flow_named_tensor;

/* Which elements of a matrix share a scale. */
enum { FP8FLOW_PER_ROW = 0, FP8FLOW_PER_COL = 1, FP8FLOW_PER_TENSOR = 2 };

/* Casts a matrix to FP8: code = round(x * scale) to nearest even, clipped to the largest number. */
typedef struct fp8flow_quantize {
    size_t size;
    fp8flow_tensor x;      /* [R, C], bf16 or f32 */
    uint32_t format;       /* FP8FLOW_E4M3 or FP8FLOW_E5M2 */
    uint32_t axis;         /* FP8FLOW_PER_... */
    uint32_t power_of_two; /* whether scales are rounded down to powers of two */
    fp8flow_tensor codes;  /* [R, C], written */
    fp8flow_tensor scales; /* f32, written: [R], [C] or [1]; the format's largest number / amax */
} fp8flow_quantize;

/* out[i,j] = sum over k of a[i,k] * b[j,k] / (scale_a[i] * scale_b[j]), accumulated in f32, k ascending. */
typedef struct fp8flow_scaled_gemm {
    size_t size;
    fp8flow_tensor a;       /* codes [I, K], or [K, I] with transpose_a */
    uint32_t transpose_a;
    uint32_t transpose_b;
    fp8flow_tensor b;       /* codes [J, K], or [K, J] with transpose_b */
    fp8flow_tensor scale_a; /* f32, [I] or [1] */
    fp8flow_tensor scale_b; /* f32, [J] or [1] */
    fp8flow_tensor out;     /* [I, J], f32 or bf16 */
    uint32_t accumulate;    /* whether to add to what is there (f32 sum, rounded once) */
} fp8flow_scaled_gemm;

/* Severity of a log line. */
enum { FP8FLOW_ERROR = 0, FP8FLOW_WARN = 1, FP8FLOW_INFO = 2, FP8FLOW_DEBUG = 3, FP8FLOW_TRACE = 4 };

/* What the engine lends. Every function takes the host itself first. */
typedef struct fp8flow_host fp8flow_host;
struct fp8flow_host {
    size_t size;
    void *context; /* the engine's */
    /* Instruction set to use: 0 baseline x86-64, 1 AVX2, 2 AVX-512. All must give the same bits. */
    uint32_t (*isa)(const fp8flow_host *host);
    /* How many threads parallel_for may use. */
    size_t (*threads)(const fp8flow_host *host);
    /* Calls body(context, task) for every task in 0..tasks, on several threads, in any order; returns after the last. */
    fp8flow_status (*parallel_for)(const fp8flow_host *host, size_t tasks,
                                   void (*body)(void *context, size_t task), void *context);
    /* Whether a line would be written. */
    uint32_t (*log_enabled)(const fp8flow_host *host, uint32_t level, const char *target);
    /* Writes a line of the engine's log, under the plugin's name. */
    void (*log)(const fp8flow_host *host, uint32_t level, const char *target, const char *message);
    /* Replaces each value by its maximum over all ranks of the run. */
    fp8flow_status (*reduce_amax)(const fp8flow_host *host, float *values, size_t len);
    /* Whether the run has been asked to stop. */
    uint32_t (*cancelled)(const fp8flow_host *host);
    /* The engine's own kernels, near the machine's limit on every instruction set. */
    fp8flow_status (*quantize)(const fp8flow_host *host, const fp8flow_quantize *call, fp8flow_error *error);
    fp8flow_status (*scaled_gemm)(const fp8flow_host *host, const fp8flow_scaled_gemm *call, fp8flow_error *error);
};

/* The values of a recipe's options, complete and checked. Every function takes the options themselves first. */
typedef struct fp8flow_options fp8flow_options;
struct fp8flow_options {
    size_t size;
    const void *context;
    fp8flow_status (*boolean)(const fp8flow_options *options, const char *name, uint32_t *value);
    fp8flow_status (*integer)(const fp8flow_options *options, const char *name, int64_t *value);
    fp8flow_status (*number)(const fp8flow_options *options, const char *name, double *value);
    /* The word lives as long as the options. */
    fp8flow_status (*choice)(const fp8flow_options *options, const char *name, const char **value);
};

/* What is known of a linear layer before anything runs. */
typedef struct fp8flow_layer {
    size_t size;
    const char *name;         /* the parameter's path without ".weight", as Hugging Face names it */
    uint64_t in_features;     /* K */
    uint64_t out_features;    /* N */
    uint64_t tokens;          /* the largest M of a micro-batch; 0 where it is not known */
    int64_t block;            /* index of the decoder block; -1 outside of one */
    const char *const *group; /* layers that read the very same input, in call order, this one included */
    size_t group_len;
} fp8flow_layer;

/* FP8 or high precision, and why. */
typedef struct fp8flow_decision {
    size_t size;
    uint32_t fp8;         /* 1: FP8; 0: the activations' own precision */
    uint32_t fp8_gemms[3]; /* FP8 GEMMs of one forward and one backward: fprop, dgrad, wgrad, each 0 or 1 */
    char reason[512];     /* in words for the plan; must not stay empty */
} fp8flow_decision;

/* Bytes for M tokens. All are zero at first. */
typedef struct fp8flow_memory {
    size_t size;
    uint64_t shared_saved;     /* kept from forward to backward, one region for the whole group */
    uint64_t shared_forward;   /* kept from the group's first forward to its last, one region for the whole group */
    uint64_t saved;            /* kept from forward to backward, for this layer alone */
    uint64_t forward_scratch;  /* lent for a forward call */
    uint64_t backward_scratch; /* lent for a backward call */
    uint64_t own;              /* held by the backend itself (weight caches); for the memory plan only */
    uint64_t keep_input;       /* 1: backward reads x again */
} fp8flow_memory;

/* Running totals of a layer since it was created; arrays are for input, weight, output gradient. All zero at first. */
typedef struct fp8flow_counters {
    size_t size;
    uint64_t fprop, dgrad, wgrad; /* FP8 GEMMs that really ran; fprop: training, recompute and evaluation together */
    uint64_t high_precision;      /* GEMMs run in high precision on purpose */
    uint64_t cast[3];             /* elements cast while telemetry was on */
    uint64_t saturated[3];        /* of these, finite elements clipped to the largest number */
    uint64_t underflowed[3];      /* of these, non-zero elements that became zero */
    uint64_t non_finite[3];       /* scales made from an infinite or NaN maximum; counted always */
    double amax[3];               /* largest finite magnitude of the tensor last cast while telemetry was on */
    uint64_t scale_age[3];        /* micro-batches since the scale last used was made; 0 where every cast makes its own */
} fp8flow_counters;

/* Why a forward runs. */
enum {
    FP8FLOW_TRAIN = 0,    /* a backward follows */
    FP8FLOW_EVAL = 1,     /* nothing is saved, no state changes */
    FP8FLOW_RECOMPUTE = 2 /* to get back what was not kept: the same scales as the first time, nothing recorded */
};

/* Codes and scales of an input, cast by the op that produced it. Never changes. */
typedef struct fp8flow_cast {
    fp8flow_tensor codes, scales;
} fp8flow_cast;

/* y = x.W^T with x [M, K], W [N, K], y [M, N]. Bias is the engine's. */
typedef struct fp8flow_forward {
    size_t size;
    uint32_t pass;                /* FP8FLOW_TRAIN, _EVAL or _RECOMPUTE */
    uint32_t telemetry;           /* whether saturation and underflow should be counted (they cost time) */
    fp8flow_tensor x;             /* bf16 or f32 */
    const fp8flow_cast *x_by_row; /* x already cast, as linear_input_formats asked; else NULL */
    const fp8flow_cast *x_by_col;
    fp8flow_tensor weight;        /* the f32 master */
    fp8flow_tensor y;             /* in the type of x; every element is written */
    uint32_t group_ready;         /* whether an earlier member of the group has filled the two regions from this x */
    uint32_t reserved;
    fp8flow_bytes group_saved;    /* memory.shared_saved bytes; empty in an evaluation */
    fp8flow_bytes group_forward;  /* memory.shared_forward bytes */
    fp8flow_bytes saved;          /* memory.saved bytes; empty in an evaluation */
    fp8flow_bytes scratch;        /* memory.forward_scratch bytes, with anything in them */
} fp8flow_forward;

/* dx = dy.W and dW += dy^T.x. */
typedef struct fp8flow_backward {
    size_t size;
    uint32_t telemetry;
    uint32_t accumulate_dx;          /* whether dx is added to what is there (f32 sum, rounded once) or overwritten */
    uint32_t accumulate_dw;          /* the same of dw */
    uint32_t reserved;
    fp8flow_tensor dy;               /* [M, N], in the type of the activations */
    fp8flow_tensor weight;           /* as in the forward */
    const fp8flow_tensor *x;         /* where memory.keep_input asked for it; else NULL */
    const fp8flow_tensor *dx;        /* [M, K] in the type of dy; NULL where nobody needs it */
    fp8flow_tensor dw;               /* [N, K] f32 */
    fp8flow_const_bytes group_saved; /* as forward left them */
    fp8flow_const_bytes saved;
    fp8flow_bytes scratch;           /* memory.backward_scratch bytes, with anything in them */
} fp8flow_backward;

/* Points of the protocol. There may be others one day: ignore what you do not know. */
enum {
    FP8FLOW_FORWARD_DONE = 0,
    FP8FLOW_BACKWARD_DONE = 1,
    FP8FLOW_WEIGHTS_CHANGED = 2 /* caches made from weights are stale */
};

/* Takes text, in as many pieces as you like. */
typedef struct fp8flow_text_sink fp8flow_text_sink;
struct fp8flow_text_sink {
    size_t size;
    void *context;
    void (*write)(const fp8flow_text_sink *sink, const char *text, size_t len);
};

/* Takes dense CPU tensors by name. */
typedef struct fp8flow_state_sink fp8flow_state_sink;
struct fp8flow_state_sink {
    size_t size;
    void *context;
    fp8flow_status (*put)(const fp8flow_state_sink *sink, const char *name, const fp8flow_tensor *tensor);
};

/* The functions of a backend. Those marked "or NULL" may be left out. */
typedef struct fp8flow_plugin {
    size_t size;  /* sizeof(fp8flow_plugin) */
    uint32_t abi; /* FP8FLOW_C_ABI */
    uint32_t reserved;
    /*
     * Every recipe with its options, as JSON:
     * [{"name": "mine", "about": "What it does.", "options": [
     *    {"name": "margin", "about": "What it means.", "default": 0, "kind": {"type": "integer", "min": 0, "max": 8}}]}]
     * Kinds: {"type": "bool"}, {"type": "integer"/"number", "min": .., "max": ..}, {"type": "choice", "values": [".."]}.
     */
    const char *recipes;

    /* Prepares the backend. *backend is passed to the calls below; it may stay NULL. */
    fp8flow_status (*start)(const fp8flow_host *host, void **backend, fp8flow_error *error);
    void (*stop)(void *backend); /* or NULL */

    /* A recipe for one run. May be called from several threads at once. */
    fp8flow_status (*recipe_new)(void *backend, const fp8flow_host *host, const char *name,
                                 const fp8flow_options *options, void **recipe, fp8flow_error *error);
    void (*recipe_free)(void *recipe);
    /* The recipe as a JSON object: name, options, formats, scale rules. Part of the run's identity: always the same. */
    fp8flow_status (*recipe_describe)(void *recipe, const fp8flow_text_sink *json, fp8flow_error *error);
    fp8flow_status (*recipe_decide)(void *recipe, const fp8flow_layer *layer, fp8flow_decision *decision,
                                    fp8flow_error *error);
    /* Once a layer, in the model's order, for layers decided as FP8. */
    fp8flow_status (*recipe_linear)(void *recipe, const fp8flow_layer *layer, void **linear, fp8flow_error *error);
    /* A point of the protocol; or NULL. */
    fp8flow_status (*recipe_on)(void *recipe, uint32_t event, fp8flow_error *error);
    /* What must survive a restart, and back again, after all layers were created; both or NULL. */
    fp8flow_status (*recipe_state)(void *recipe, const fp8flow_state_sink *state, fp8flow_error *error);
    fp8flow_status (*recipe_restore)(void *recipe, const fp8flow_named_tensor *state, size_t len,
                                     fp8flow_error *error);

    void (*linear_free)(void *linear);
    fp8flow_status (*linear_memory)(void *linear, uint64_t tokens, fp8flow_memory *memory, fp8flow_error *error);
    /* JSON [{"format": "e4m3", "axis": "row", "rule": "amax_pow2"}] of ready-made inputs it would take; or NULL. */
    const char *(*linear_input_formats)(void *linear);
    fp8flow_status (*linear_forward)(void *linear, const fp8flow_forward *call, fp8flow_error *error);
    fp8flow_status (*linear_backward)(void *linear, const fp8flow_backward *call, fp8flow_error *error);
    fp8flow_status (*linear_counters)(void *linear, fp8flow_counters *counters, fp8flow_error *error);

    /* Primitives, for benchmarks and the conformance suite; both or NULL. Called from several threads at once. */
    fp8flow_status (*quantize)(void *backend, const fp8flow_host *host, const fp8flow_quantize *call,
                               fp8flow_error *error);
    fp8flow_status (*scaled_gemm)(void *backend, const fp8flow_host *host, const fp8flow_scaled_gemm *call,
                                  fp8flow_error *error);
} fp8flow_plugin;

/* What follows writes the manifest into a section of its own, where it is read without opening the library. */

#if defined(__x86_64__)
#define FP8FLOW_ARCH "x86_64"
#elif defined(__aarch64__)
#define FP8FLOW_ARCH "aarch64"
#else
#define FP8FLOW_ARCH "unknown"
#endif
#if defined(__GLIBC__)
#define FP8FLOW_LIBC "gnu"
#else
#define FP8FLOW_LIBC "musl"
#endif
#define FP8FLOW_TEXT_(x) #x
#define FP8FLOW_TEXT(x) FP8FLOW_TEXT_(x)

#define FP8FLOW_JSON_(name, version, about, license, recipes)                                      \
    "{\"name\":\"" name "\",\"version\":\"" version "\",\"about\":\"" about "\",\"license\":\""    \
    license "\",\"sdk\":\"" FP8FLOW_SDK "\",\"numerics\":0,\"target\":\"" FP8FLOW_ARCH "-linux-"    \
    FP8FLOW_LIBC "\",\"panic\":\"none\",\"recipes\":" recipes                                      \
    ",\"devices\":[\"cpu\"],\"crate\":\"c\",\"c_abi\":" FP8FLOW_TEXT(FP8FLOW_C_ABI) "}"

/*
 * Makes the table `functions` the backend of this library. Once, outside of any function; string literals throughout:
 *
 *   FP8FLOW_PLUGIN(functions, "my-backend", "0.1.0", "What it does.", "MIT", "[\"mine\"]");
 *
 * The last one lists the names of its recipes. The texts hold no quotes and no backslashes.
 */
#define FP8FLOW_PLUGIN(functions, name, version, about, license, recipes)                          \
    static const struct {                                                                          \
        char magic[16];                                                                            \
        unsigned char length[4];                                                                   \
        char json[sizeof(FP8FLOW_JSON_(name, version, about, license, recipes))];                  \
    } fp8flow_manifest_ __attribute__((used, section(".fp8flow"))) = {                             \
        {'f', 'p', '8', 'f', 'l', 'o', 'w', '-', 'm', 'a', 'n', 'i', 'f', 'e', 's', 't'},          \
        {(sizeof(FP8FLOW_JSON_(name, version, about, license, recipes)) - 1) & 0xff,               \
         ((sizeof(FP8FLOW_JSON_(name, version, about, license, recipes)) - 1) >> 8) & 0xff, 0, 0}, \
        FP8FLOW_JSON_(name, version, about, license, recipes)};                                    \
    FP8FLOW_EXPORT_ const fp8flow_plugin *fp8flow_c_backend(void);                                 \
    FP8FLOW_EXPORT_ const fp8flow_plugin *fp8flow_c_backend(void) { return &(functions); }         \
    typedef char fp8flow_manifest_fits_                                                            \
        [sizeof(FP8FLOW_JSON_(name, version, about, license, recipes)) < 65536 ? 1 : -1]

#ifdef __cplusplus
#define FP8FLOW_EXPORT_ extern "C" __attribute__((visibility("default")))
#else
#define FP8FLOW_EXPORT_ __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
} /* extern "C" */

#include <cstring>
#include <exception>

/* Runs a C++ body that returns a status; an exception becomes an error. */
template <class Body>
fp8flow_status fp8flow_guard(fp8flow_error *error, Body body) noexcept {
    const char *what = "an exception of an unknown type";
    try {
        return body();
    } catch (const std::exception &exception) {
        std::strncpy(error->message, exception.what(), sizeof error->message - 1);
        return FP8FLOW_INTERNAL;
    } catch (...) {
        std::strncpy(error->message, what, sizeof error->message - 1);
        return FP8FLOW_INTERNAL;
    }
}
#endif

#endif
