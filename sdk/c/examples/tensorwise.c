/*
 * A complete backend in C99: dynamic tensorwise scaling, E4M3 everywhere.
 *
 * Every operand gets one scale, 448 / amax, made from the tensor that is being cast. The cast is written out here; the
 * GEMMs are the engine's (host->scaled_gemm). An input is cast once for all layers of its group, a weight once an
 * optimizer step, and what is kept for backward is the input's codes: one byte an element.
 *
 *     cc -std=c99 -O2 -fPIC -shared -I../include tensorwise.c -o libtensorwise.so
 */
#include "fp8flow_plugin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LARGEST 448.0f     /* of E4M3 */
#define AMAX_FLOOR 1e-12f  /* a tensor of zeros has a scale too */
#define BLOCKS 64          /* tasks of a parallel loop */

/* Returns from a function with a status and a message. */
#define FAIL(status, ...)                                                \
    do {                                                                 \
        snprintf(error->message, sizeof error->message, __VA_ARGS__);    \
        return status;                                                   \
    } while (0)
#define TRY(call)                                  \
    do {                                           \
        fp8flow_status status_ = (call);           \
        if (status_ != FP8FLOW_OK) return status_; \
    } while (0)

typedef struct recipe {
    const fp8flow_host *host;
    int power_of_two;    /* the option */
    uint64_t generation; /* of the weights */
} recipe;

typedef struct linear {
    recipe *recipe;
    uint64_t k, n;
    uint8_t *weight; /* its codes, [N, K] */
    float weight_scale;
    int weight_made;
    uint64_t made_in; /* generation */
    fp8flow_counters counters;
} linear;

/* What the group keeps of an input: its scale, then its codes from byte 64 on. */
static uint64_t kept(uint64_t elements) { return 64 + elements; }

/* ---- the cast --------------------------------------------------------------------------------------------------- */

/* x rounded to nearest even, clipped to the largest number; NaN stays NaN. */
static uint8_t e4m3(float x) {
    uint32_t bits, sign;
    memcpy(&bits, &x, sizeof bits);
    sign = bits >> 24 & 0x80;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return (uint8_t)(sign | 0x7f);
    if (bits >= 0x43e00000) return (uint8_t)(sign | 0x7e); /* 448 and above */
    if (bits < 0x3c800000) {                               /* below 2^-6: steps of 2^-9 */
        float magnitude, rounded;
        memcpy(&magnitude, &bits, sizeof magnitude);
        rounded = magnitude * 512.0f + 8388608.0f; /* where floats are 1 apart */
        return (uint8_t)(sign | (uint32_t)(rounded - 8388608.0f));
    }
    bits += 0x7ffff + (bits >> 20 & 1); /* 3 of 23 bits stay */
    bits = (bits >> 20) - (120 << 3);   /* bias 127 becomes 7 */
    return (uint8_t)(sign | (bits > 0x7e ? 0x7e : bits));
}

static float element(const fp8flow_tensor *x, uint64_t i) {
    if (x->dtype == FP8FLOW_F32) return ((const float *)x->data)[i];
    {
        uint32_t bits = (uint32_t)((const uint16_t *)x->data)[i] << 16;
        float value;
        memcpy(&value, &bits, sizeof value);
        return value;
    }
}

/* A tensor that is being cast, a block of it by every task. */
typedef struct cast_job {
    const fp8flow_tensor *x;
    uint64_t elements;
    float scale;
    uint8_t *codes;
    float amax[BLOCKS];
    uint64_t underflowed[BLOCKS];
    int count;
} cast_job;

static void range(const cast_job *job, size_t task, uint64_t *from, uint64_t *to) {
    *from = job->elements * task / BLOCKS;
    *to = job->elements * (task + 1) / BLOCKS;
}

static void find_amax(void *context, size_t task) {
    cast_job *job = context;
    uint64_t i, to;
    float amax = 0.0f;
    for (range(job, task, &i, &to); i < to; i++) {
        float magnitude = fabsf(element(job->x, i));
        if (!(magnitude <= amax)) amax = magnitude; /* NaN stays */
        if (isnan(amax)) break;
    }
    job->amax[task] = amax;
}

static void write_codes(void *context, size_t task) {
    cast_job *job = context;
    uint64_t i, to, underflowed = 0;
    for (range(job, task, &i, &to); i < to; i++) {
        float x = element(job->x, i);
        job->codes[i] = e4m3(x * job->scale);
        if (job->count && x != 0.0f && (job->codes[i] & 0x7f) == 0) underflowed++;
    }
    job->underflowed[task] = underflowed;
}

/* The largest power of two that is no larger. */
static float rounded_down(float scale) {
    uint32_t bits;
    memcpy(&bits, &scale, sizeof bits);
    bits &= 0xff800000;
    memcpy(&scale, &bits, sizeof scale);
    return scale;
}

/* Casts x into codes and a scale; `which` counts as input (0), weight (1) or gradient (2). */
static fp8flow_status cast(linear *self, int which, const fp8flow_tensor *x, uint64_t elements, int telemetry,
                           uint8_t *codes, float *scale, fp8flow_error *error) {
    const fp8flow_host *host = self->recipe->host;
    cast_job job;
    float amax = 0.0f;
    int i;
    job.x = x;
    job.elements = elements;
    job.codes = codes;
    job.count = telemetry;
    if (host->parallel_for(host, BLOCKS, find_amax, &job) != FP8FLOW_OK)
        FAIL(FP8FLOW_INTERNAL, "parallel_for failed");
    for (i = 0; i < BLOCKS; i++)
        if (!(job.amax[i] <= amax) && !isnan(amax)) amax = job.amax[i];
    *scale = LARGEST / (amax < AMAX_FLOOR ? AMAX_FLOOR : amax);
    if (self->recipe->power_of_two && isfinite(amax)) *scale = rounded_down(*scale);
    if (!isfinite(amax)) self->counters.non_finite[which]++;
    job.scale = *scale;
    if (host->parallel_for(host, BLOCKS, write_codes, &job) != FP8FLOW_OK)
        FAIL(FP8FLOW_INTERNAL, "parallel_for failed");
    if (telemetry) {
        self->counters.cast[which] += elements;
        for (i = 0; i < BLOCKS; i++) self->counters.underflowed[which] += job.underflowed[i];
        if (isfinite(amax)) self->counters.amax[which] = amax;
    }
    return FP8FLOW_OK;
}

/* ---- tensors ---------------------------------------------------------------------------------------------------- */

/* Fails unless x is a dense, aligned CPU matrix of floats with `cols` columns; any number of rows where `rows` is 0. */
static fp8flow_status matrix(const char *name, const fp8flow_tensor *x, uint64_t rows, uint64_t cols,
                             fp8flow_error *error) {
    uintptr_t align = x->dtype == FP8FLOW_F32 ? 4 : 2;
    if (x->dtype != FP8FLOW_F32 && x->dtype != FP8FLOW_BF16)
        FAIL(FP8FLOW_UNSUPPORTED, "%s: expected f32 or bf16, found type %u", name, (unsigned)x->dtype);
    if (x->device.kind != 0) FAIL(FP8FLOW_UNSUPPORTED, "%s is not in CPU memory", name);
    if (x->rank != 2 || x->shape[1] != cols || (rows != 0 && x->shape[0] != rows))
        FAIL(FP8FLOW_INVALID, "%s: expected %llu columns, found %llu of rank %u", name, (unsigned long long)cols,
             (unsigned long long)x->shape[1], (unsigned)x->rank);
    if ((x->shape[1] > 1 && x->strides[1] != 1) || (x->shape[0] > 1 && x->strides[0] != (int64_t)cols))
        FAIL(FP8FLOW_UNSUPPORTED, "%s is not dense", name);
    if ((uintptr_t)x->data % align != 0) FAIL(FP8FLOW_UNSUPPORTED, "%s is misaligned", name);
    return FP8FLOW_OK;
}

/* A dense CPU tensor over memory of our own; `cols` 0 for one dimension. */
static fp8flow_tensor tensor(const void *data, uint32_t dtype, uint64_t rows, uint64_t cols) {
    fp8flow_tensor t;
    memset(&t, 0, sizeof t);
    t.data = (void *)(uintptr_t)data;
    t.dtype = dtype;
    t.rank = cols == 0 ? 1 : 2;
    t.shape[0] = rows;
    t.shape[1] = cols == 0 ? 1 : cols;
    t.shape[2] = t.shape[3] = 1;
    t.strides[0] = cols == 0 ? 1 : (int64_t)cols;
    t.strides[1] = cols == 0 ? 0 : 1;
    return t;
}

/* An operand: codes and the scale they were made with. */
typedef struct operand {
    const uint8_t *codes;
    const float *scale;
    uint64_t rows, cols; /* as it lies in memory */
    int transpose;       /* contracted along its rows */
} operand;

static fp8flow_status multiply(const fp8flow_host *host, operand a, operand b, const fp8flow_tensor *out,
                               uint32_t accumulate, fp8flow_error *error) {
    fp8flow_scaled_gemm call;
    memset(&call, 0, sizeof call);
    call.size = sizeof call;
    call.a = tensor(a.codes, FP8FLOW_E4M3, a.rows, a.cols);
    call.transpose_a = (uint32_t)a.transpose;
    call.scale_a = tensor(a.scale, FP8FLOW_F32, 1, 0);
    call.b = tensor(b.codes, FP8FLOW_E4M3, b.rows, b.cols);
    call.transpose_b = (uint32_t)b.transpose;
    call.scale_b = tensor(b.scale, FP8FLOW_F32, 1, 0);
    call.out = *out;
    call.accumulate = accumulate;
    return host->scaled_gemm(host, &call, error);
}

/* ---- the layer -------------------------------------------------------------------------------------------------- */

static fp8flow_status linear_memory(void *object, uint64_t tokens, fp8flow_memory *memory, fp8flow_error *error) {
    const linear *self = object;
    (void)error;
    memory->shared_saved = kept(tokens * self->k);
    memory->shared_forward = kept(tokens * self->k); /* where nothing is saved, in an evaluation */
    memory->backward_scratch = kept(tokens * self->n);
    memory->own = self->n * self->k;
    return FP8FLOW_OK;
}

static fp8flow_status current_weight(linear *self, const fp8flow_tensor *weight, int telemetry,
                                     fp8flow_error *error) {
    if (self->weight_made && self->made_in == self->recipe->generation) return FP8FLOW_OK;
    TRY(matrix("weight", weight, self->n, self->k, error));
    TRY(cast(self, 1, weight, self->n * self->k, telemetry, self->weight, &self->weight_scale, error));
    self->weight_made = 1;
    self->made_in = self->recipe->generation;
    return FP8FLOW_OK;
}

static fp8flow_status linear_forward(void *object, const fp8flow_forward *call, fp8flow_error *error) {
    linear *self = object;
    const fp8flow_bytes *region = call->pass == FP8FLOW_EVAL ? &call->group_forward : &call->group_saved;
    uint64_t m = call->x.shape[0];
    operand x, w;
    TRY(matrix("x", &call->x, 0, self->k, error));
    if (call->y.dtype != call->x.dtype) FAIL(FP8FLOW_INVALID, "y has another type than x");
    if (call->y.shape[0] != m) FAIL(FP8FLOW_INVALID, "y has another number of rows than x");
    TRY(matrix("y", &call->y, 0, self->n, error));
    if (region->len < kept(m * self->k))
        FAIL(FP8FLOW_INVALID, "a group's region of %zu bytes, %llu are needed", region->len,
             (unsigned long long)kept(m * self->k));
    TRY(current_weight(self, &call->weight, (int)call->telemetry, error));
    if (!call->group_ready)
        TRY(cast(self, 0, &call->x, m * self->k, (int)call->telemetry, region->data + 64, (float *)region->data,
                 error));
    if (m == 0) return FP8FLOW_OK;
    x.codes = region->data + 64, x.scale = (const float *)region->data;
    x.rows = m, x.cols = self->k, x.transpose = 0;
    w.codes = self->weight, w.scale = &self->weight_scale;
    w.rows = self->n, w.cols = self->k, w.transpose = 0;
    TRY(multiply(self->recipe->host, x, w, &call->y, 0, error));
    self->counters.fprop++;
    return FP8FLOW_OK;
}

static fp8flow_status linear_backward(void *object, const fp8flow_backward *call, fp8flow_error *error) {
    linear *self = object;
    const fp8flow_host *host = self->recipe->host;
    uint64_t m = call->dy.shape[0];
    float *scale = (float *)call->scratch.data;
    operand dy, x, w;
    TRY(matrix("dy", &call->dy, 0, self->n, error));
    TRY(matrix("dw", &call->dw, self->n, self->k, error));
    if (call->dw.dtype != FP8FLOW_F32) FAIL(FP8FLOW_INVALID, "dw is not f32");
    if (call->group_saved.len < kept(m * self->k) || call->scratch.len < kept(m * self->n))
        FAIL(FP8FLOW_INVALID, "what forward has kept, or the scratch memory, is not there");
    if (call->dx != NULL) {
        if (call->dx->dtype != call->dy.dtype) FAIL(FP8FLOW_INVALID, "dx has another type than dy");
        if (call->dx->shape[0] != m) FAIL(FP8FLOW_INVALID, "dx has another number of rows than dy");
        TRY(matrix("dx", call->dx, 0, self->k, error));
    }
    TRY(current_weight(self, &call->weight, (int)call->telemetry, error));
    if (m == 0) {
        if (!call->accumulate_dw) memset(call->dw.data, 0, self->n * self->k * sizeof(float));
        return FP8FLOW_OK;
    }
    TRY(cast(self, 2, &call->dy, m * self->n, (int)call->telemetry, call->scratch.data + 64, scale, error));
    dy.codes = call->scratch.data + 64, dy.scale = scale;
    dy.rows = m, dy.cols = self->n, dy.transpose = 0;
    if (call->dx != NULL) { /* dx = dy.W, over N */
        w.codes = self->weight, w.scale = &self->weight_scale;
        w.rows = self->n, w.cols = self->k, w.transpose = 1;
        TRY(multiply(host, dy, w, call->dx, call->accumulate_dx, error));
        self->counters.dgrad++;
    }
    dy.transpose = 1; /* dW = dy^T.x, over M */
    x.codes = call->group_saved.data + 64, x.scale = (const float *)(const void *)call->group_saved.data;
    x.rows = m, x.cols = self->k, x.transpose = 1;
    TRY(multiply(host, dy, x, &call->dw, call->accumulate_dw, error));
    self->counters.wgrad++;
    return FP8FLOW_OK;
}

/* Field by field: the caller's struct may be shorter or longer than ours. */
static fp8flow_status linear_counters(void *object, fp8flow_counters *counters, fp8flow_error *error) {
    const linear *self = object;
    size_t size = counters->size < sizeof *counters ? counters->size : sizeof *counters;
    (void)error;
    memcpy((char *)counters + sizeof counters->size, (const char *)&self->counters + sizeof counters->size,
           size - sizeof counters->size);
    return FP8FLOW_OK;
}

static void linear_free(void *object) {
    linear *self = object;
    free(self->weight);
    free(self);
}

/* ---- the recipe ------------------------------------------------------------------------------------------------- */

static fp8flow_status recipe_new(void *backend, const fp8flow_host *host, const char *name,
                                 const fp8flow_options *options, void **object, fp8flow_error *error) {
    recipe *self;
    uint32_t power_of_two;
    (void)backend;
    if (strcmp(name, "tensorwise") != 0) FAIL(FP8FLOW_INVALID, "no recipe `%s`; there is `tensorwise`", name);
    if (options->boolean(options, "power_of_two", &power_of_two) != FP8FLOW_OK)
        FAIL(FP8FLOW_INVALID, "the option `power_of_two` is missing");
    self = calloc(1, sizeof *self);
    if (self == NULL) FAIL(FP8FLOW_INTERNAL, "out of memory");
    self->host = host;
    self->power_of_two = (int)power_of_two;
    *object = self;
    return FP8FLOW_OK;
}

static fp8flow_status recipe_describe(void *object, const fp8flow_text_sink *json, fp8flow_error *error) {
    const recipe *self = object;
    char text[256];
    int len = snprintf(text, sizeof text,
                       "{\"backend\":\"c-tensorwise\",\"recipe\":\"tensorwise\",\"format\":\"e4m3\","
                       "\"scaling\":\"dynamic\",\"axis\":\"tensor\",\"power_of_two\":%s}",
                       self->power_of_two ? "true" : "false");
    (void)error;
    json->write(json, text, (size_t)len);
    return FP8FLOW_OK;
}

static int fits(const fp8flow_layer *layer) {
    return layer->in_features > 0 && layer->out_features > 0 && layer->in_features % 16 == 0 &&
           layer->out_features % 16 == 0;
}

static fp8flow_status recipe_decide(void *object, const fp8flow_layer *layer, fp8flow_decision *decision,
                                    fp8flow_error *error) {
    int i;
    (void)object;
    (void)error;
    decision->fp8 = (uint32_t)fits(layer);
    for (i = 0; i < 3; i++) decision->fp8_gemms[i] = decision->fp8;
    snprintf(decision->reason, sizeof decision->reason,
             decision->fp8 ? "tensorwise e4m3" : "in_features and out_features are not multiples of 16");
    return FP8FLOW_OK;
}

static fp8flow_status recipe_linear(void *object, const fp8flow_layer *layer, void **made, fp8flow_error *error) {
    linear *self;
    if (!fits(layer)) FAIL(FP8FLOW_INVALID, "in_features and out_features are not multiples of 16");
    self = calloc(1, sizeof *self);
    if (self == NULL) FAIL(FP8FLOW_INTERNAL, "out of memory");
    self->recipe = object;
    self->k = layer->in_features;
    self->n = layer->out_features;
    self->weight = malloc(self->n * self->k);
    if (self->weight == NULL) {
        free(self);
        FAIL(FP8FLOW_INTERNAL, "out of memory");
    }
    *made = self;
    return FP8FLOW_OK;
}

static fp8flow_status recipe_on(void *object, uint32_t event, fp8flow_error *error) {
    recipe *self = object;
    (void)error;
    if (event == FP8FLOW_WEIGHTS_CHANGED) self->generation++;
    return FP8FLOW_OK;
}

static void recipe_free(void *object) { free(object); }

/* ---- the backend ------------------------------------------------------------------------------------------------ */

static fp8flow_status start(const fp8flow_host *host, void **backend, fp8flow_error *error) {
    (void)backend;
    (void)error;
    host->log(host, FP8FLOW_DEBUG, "c_tensorwise", "started");
    return FP8FLOW_OK;
}

static const char RECIPES[] =
    "[{\"name\": \"tensorwise\", \"about\": \"One dynamic scale a tensor, E4M3 everywhere.\", \"options\": [{"
    "\"name\": \"power_of_two\", \"default\": true, \"kind\": {\"type\": \"bool\"}, "
    "\"about\": \"Round every scale down to a power of two.\"}]}]";

static const fp8flow_plugin FUNCTIONS = {
    sizeof(fp8flow_plugin), FP8FLOW_C_ABI, 0, RECIPES,
    start,                  NULL,
    recipe_new,             recipe_free,   recipe_describe, recipe_decide, recipe_linear, recipe_on, NULL, NULL,
    linear_free,            linear_memory, NULL,            linear_forward, linear_backward, linear_counters,
    NULL,                   NULL,
};

FP8FLOW_PLUGIN(FUNCTIONS, "c-tensorwise", "0.1.0", "Dynamic tensorwise scaling in plain C.", "MIT OR Apache-2.0",
               "[\"tensorwise\"]");
