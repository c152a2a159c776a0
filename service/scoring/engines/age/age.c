/* AGE, and f alone, as one C function: from encoded candidates to the six columns of Scores. `kernel.py` is its only
 * caller.
 *
 * What it computes is defined in Python, under the same names: network.h is models/networks/click.py, draws.h and
 * method.h are models/exploration/age.py. Read those first. Equations are those of [1] Wu et al. 2021,
 * arXiv:2112.11136v1.
 *
 * A request is cut into tiles of candidates, so few that their activations stay in the L2 cache, beside the weights,
 * while all passes of all steps run over them. The headers are compiled once for each instruction set;
 * `age_best` tells which of them this CPU has. Nothing is kept from one call to the next. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 8, TILE = 72, COLUMNS = 6 };
enum { NO_GATE, FIXED_GATE, LEARNED_GATE };
enum { OK, NO_MEMORY, BAD_CONTEXT, BAD_ITEM };

/* One field: the rows of its table that it pools, and how. */
typedef struct {
    const float *table;
    int32_t rows, width;  /* of the table */
    int32_t slot, slots;  /* where its indices stand among those of its side */
    int32_t weighted;     /* 0: one row as it stands, 1: the weighted sum of its slots' rows */
} Field;

/* One side of the batch, context or item. */
typedef struct {
    const Field *fields;
    int32_t count, slots, width;
} Side;

/* Weights in panels, see `product` in matrix.h. Sizes are padded to whole panels, what was added is 0. */
typedef struct {
    Side context, item;
    int32_t layers, gate_units;
    int32_t units[LAYERS];  /* as trained */
    int32_t padded[LAYERS], context_padded, item_padded, width_padded;
    const float *first_context, *first_item, *gram, *down, *up;  /* gram, or down and up: see `lift` */
    const float *forward[LAYERS], *backward[LAYERS], *bias[LAYERS], *out;
    const float *gate, *gate_bias, *gate_out;
    float out_bias, gate_out_bias;
} Network;

/* models.exploration.age.Age */
typedef struct {
    int32_t ucb, last_layer, own_masks, pgd, projected, steps, gate;  /* own_masks: a candidate's mask is its own */
    float threshold;
    int64_t max_impressions;
} Method;

typedef struct {
    const int32_t *context_index, *item_index;  /* (1, Kc), (B, Ki) */
    const float *context_weight, *item_weight;
    const float *masks;                         /* (S, R, U), R = B of own masks, else 1 */
    const int64_t *impressions;                 /* (B,) */
    float *scores;                              /* (COLUMNS, B), written */
    float lambda;
    int32_t rows, draws, mask_rows, mask_units; /* B, S, R, U */
} Request;

/* Four floats anywhere: every instruction set has them. */
typedef float quad __attribute__((vector_size(16), aligned(4)));

static float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/* Square root of what may be a rounding error below 0. */
static float length(float squared) { return sqrtf(squared > 0.0f ? squared : 0.0f); }

/* 1 / length; no direction is made of what is shorter than rounding. */
static float inverse(float length) { return 1.0f / (length > 1e-15f ? length : 1e-15f); }

/* Writes the scores of a candidate as they are without exploration. */
static void unexplored(const Request *request, int place, float p, int open, float threshold)
{
    const float scores[COLUMNS] = {p, p, 0.0f, open ? 1.0f : 0.0f, threshold, 0.0f};
    for (int i = 0; i < COLUMNS; i++) request->scores[(size_t)i * request->rows + place] = scores[i];
}

/* Whether every index of a row has a row in its table. They are called into the cache: `embed` needs them soon. */
static int reach(const Side *side, const int32_t *index)
{
    for (const Field *field = side->fields; field < side->fields + side->count; field++)
        for (int slot = field->slot; slot < field->slot + field->slots; slot++) {
            if ((uint32_t)index[slot] >= (uint32_t)field->rows) return 0;
            const float *row = field->table + (size_t)index[slot] * field->width;
            __builtin_prefetch(row);
            __builtin_prefetch(row + field->width - 1);
        }
    return 1;
}

/* One row's embedding, each field's rows pooled as in `models.networks.click._pool`. */
static void embed(const Side *side, const int32_t *index, const float *weight, float *out)
{
    for (const Field *field = side->fields; field < side->fields + side->count; out += field->width, field++)
        for (int slot = field->slot; slot < field->slot + field->slots; slot++) {
            const float *row = field->table + (size_t)index[slot] * field->width;
            const float factor = field->weighted ? weight[slot] : 1.0f;
            const int first = slot == field->slot;
            int k = 0;
            for (; k + 4 <= field->width; k += 4)
                *(quad *)(out + k) = *(const quad *)(row + k) * factor + (first ? (quad){0} : *(quad *)(out + k));
            for (; k < field->width; k++) out[k] = row[k] * factor + (first ? 0.0f : out[k]);
        }
}

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 6")
#endif

#define JOIN_(name, suffix) name##_##suffix
#define JOIN(name, suffix) JOIN_(name, suffix)
#define NAME(name) JOIN(name, PATH)

#define BLOCK 6  /* rows and vectors of a product that fit into the registers at a time */

#define PATH portable
#define TARGET
#define LANES 4  /* floats in a vector */
#if defined(__aarch64__)
#define WIDE 4
#else
#define WIDE 2
#endif
#include "method.h"

#if defined(__x86_64__)
#define PATH avx2
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define WIDE 2
#include "method.h"

#define PATH avx512
#define TARGET __attribute__((target("avx512f,avx2,fma")))
#define LANES 16
#define WIDE 4
#include "method.h"
#endif

#include "hash.h"
#include "noise.h"

/* Checksum of these files, which tells `kernel.py` whether it reads the same ones. */
const uint32_t age_source = SOURCE;

/* The best path of this CPU: 0 portable, 1 AVX2, 2 AVX-512; each machine has all below. */
int age_best(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    return __builtin_cpu_supports("avx512f") ? 2 : 1;
#else
    return 0;
#endif
}

/* Vectors of 4 << path floats that a panel of weights has for a path, see `product` in matrix.h. */
int age_wide(int path)
{
#if defined(__x86_64__)
    if (path == 2) return wide_avx512;
    if (path == 1) return wide_avx2;
#endif
    (void)path;
    return wide_portable;
}

/* Scores of one request. Any number of threads may be in here.
 *
 * path: at most `age_best`. The weights are packed for it, in panels of `age_wide`.
 * method: nothing for the plain prediction; masks and impressions of the request are then not read.
 * Returns OK, or NO_MEMORY, or which side had an index without a row; the scores are then worth nothing. */
int age_scores(int path, const Network *network, const Method *method, const Request *request)
{
#if defined(__x86_64__)
    if (path == 2) return scores_avx512(network, method, request);
    if (path == 1) return scores_avx2(network, method, request);
#endif
    (void)path;
    return scores_portable(network, method, request);
}

/* Texts with a NUL between any two. */
typedef struct {
    const uint8_t *next, *end;
} Texts;

/* Hashes the next text. Returns 1; or 0 where one has a NUL in it, or is longer than hash.h knows. */
static inline int next_hash(Texts *texts, int last, uint64_t seed, uint64_t *hashed)
{
    const uint8_t *stop = memchr(texts->next, 0, texts->end - texts->next);
    if ((stop == NULL) != last) return 0;
    if (!stop) stop = texts->end;
    if (stop - texts->next > LONGEST_TEXT) return 0;
    *hashed = hash(texts->next, stop - texts->next, seed);
    texts->next = stop + 1;
    return 1;
}

/* Hashes of `count` texts; text i has the seed seeds[i / each]. Returns what `next_hash` does. */
int age_hashes(const uint8_t *texts, size_t size, size_t count, size_t each, const uint64_t *seeds, uint64_t *hashes)
{
    Texts left = {texts, texts + size};
    for (size_t i = 0; i < count; i++)
        if (!next_hash(&left, i + 1 == count, seeds[i / each], hashes + i)) return 0;
    return 1;
}

/* models.columns.COLUMN */
typedef struct {
    uint64_t seed, buckets;
    int32_t first, slot;
} Column;

/* Table rows of `rows` texts of each column, into its slot of index (rows, stride). Returns what `next_hash` does. */
int age_fill(const uint8_t *texts, size_t size, const Column *columns, size_t count, size_t rows, size_t stride,
             int32_t *index)
{
    Texts left = {texts, texts + size};
    for (const Column *column = columns; column < columns + count; column++)
        for (size_t row = 0; row < rows; row++) {
            const int last = column + 1 == columns + count && row + 1 == rows;
            uint64_t hashed;
            if (!next_hash(&left, last, column->seed, &hashed)) return 0;
            index[row * stride + column->slot] = column->first + (int32_t)(hashed % column->buckets);
        }
    return 1;
}

/* Dropout masks (S, R, U) of a request or version, R = 1, or of each of its R candidates, by their hashes. */
void age_dropout(uint64_t seed, uint64_t name, const uint64_t *item_hash, int rows, int draws, int units, double rate,
                 float *masks)
{
    for (int row = 0; row < rows; row++) {
        const uint64_t key = combine(item_hash ? combine(seed, item_hash[row]) : seed, name);
        dropout(key, draws, units, (size_t)rows * units, rate, masks + (size_t)row * units);
    }
}
