/* The passes of `_age.c` for one instruction set: PATH its name, TARGET its attribute, LANES and BLOCK its sizes.
 *
 * Matrices of activations, (rows, width), are stored in vectors: vector v of row r stands at (v * stride + r) * LANES.
 * The rows of a block are so at constant distances, for the product that reads them and for the one that wrote them.
 * stride is odd, for the vectors of one row not to fall into the same set of the L1 cache. Every number of a row is
 * computed by the same operations in the same order, whatever stands in the rows beside it: a candidate's score is the
 * same to the bit in any request. */

typedef float NAME(vec) __attribute__((vector_size(4 * LANES)));
typedef int32_t NAME(ints) __attribute__((vector_size(4 * LANES)));
#define vec NAME(vec)
#define ints NAME(ints)
#define INLINE TARGET static inline __attribute__((always_inline))
#define EACH_ROW _Pragma("GCC unroll 12") for (int r = 0; r < rows; r++)

enum { NAME(LINEAR), NAME(RELU), NAME(SLOPE) };
#define LINEAR NAME(LINEAR)
#define RELU NAME(RELU)
#define SLOPE NAME(SLOPE)

/* x where gate > 0, else 0: ReLU is where(x, x), and so is its derivative's product, where(x, z). */
INLINE vec NAME(where)(vec x, vec gate) { return (vec)((ints)x & (gate > (vec){0})); }

INLINE float NAME(sum)(vec x)
{
    quad parts[LANES / 4], all = {0};
    memcpy(parts, &x, sizeof x);
    for (int i = 0; i < LANES / 4; i++) all += parts[i];
    return (all[0] + all[2]) + (all[1] + all[3]);
}

/* Up to LANES floats from anywhere, 0 where there are fewer. */
INLINE vec NAME(load)(const float *from, int count)
{
    vec x = {0};
    if (count >= LANES) memcpy(&x, from, sizeof x);
    else if (count > 0) memcpy(&x, from, sizeof *from * count);
    return x;
}

/* `rows` rows (a constant) of one panel of a product: the 2 vectors of each stay in registers over the whole depth. */
INLINE void NAME(block)(const int rows, long stride, int depth, const vec *a, const vec *panel, const vec *start,
                        long start_stride, int start_row, vec *out, int finish)
{
    vec left[BLOCK], right[BLOCK];
    EACH_ROW left[r] = start ? start[r * start_row] : (vec){0};
    EACH_ROW right[r] = start ? start[start_stride + r * start_row] : (vec){0};
    for (int k = 0; k < depth; k += LANES, a += stride)
        for (int lane = 0; lane < LANES; lane++, panel += 2) {
            const float *x = (const float *)a + lane;
            const vec one = panel[0], two = panel[1];
            EACH_ROW left[r] += x[r * LANES] * one, right[r] += x[r * LANES] * two;
        }
    if (finish == RELU) EACH_ROW left[r] = NAME(where)(left[r], left[r]), right[r] = NAME(where)(right[r], right[r]);
    if (finish == SLOPE)
        EACH_ROW left[r] = NAME(where)(left[r], out[r]), right[r] = NAME(where)(right[r], out[stride + r]);
    EACH_ROW out[r] = left[r], out[stride + r] = right[r];
}

/* out = finish(start + a w): (rows, depth) (depth, width) -> (rows, width).
 *
 * w: panels of 2 LANES columns, each (depth, 2 LANES).
 * start: nothing, one row for all (shared), or a matrix.
 * finish: LINEAR; RELU; or SLOPE, 0 where out was not above 0 before: a step back through the ReLU that made out. */
TARGET static void NAME(product)(int rows, long stride, int depth, int width, const float *a, const float *w,
                                 const float *start, int shared, float *out, int finish)
{
    const int blocks = (rows + BLOCK - 1) / BLOCK, panels = width / (2 * LANES);
    const long start_stride = shared ? 1 : stride, start_row = shared ? 0 : 1;
    for (int panel = 0; panel < panels; panel++)
        for (int block = 0; block < blocks; block++) {
            const int from = block * rows / blocks, count = (block + 1) * rows / blocks - from;  /* as even as can be */
            const vec *at = (const vec *)a + from, *weights = (const vec *)w + (long)panel * depth * 2;
            const vec *begin = start ? (const vec *)start + 2 * panel * start_stride + from * start_row : 0;
            vec *to = (vec *)out + 2 * panel * stride + from;
            switch (count) {
#define CASE(n) \
    case n: NAME(block)(n, stride, depth, at, weights, begin, start_stride, start_row, to, finish); break;
                CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if BLOCK > 6
                CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
#undef CASE
            }
        }
}

/* Row by row u (x + y): (rows, width), (rows, width), (rows, width) or nothing -> (rows,) */
TARGET static void NAME(dot)(int rows, long stride, int width, const float *u, const float *x, const float *y, float *to)
{
    for (int r = 0; r < rows; r++) {
        vec total = {0};
        for (long v = r; v < width / LANES * stride; v += stride)
            total += ((const vec *)u)[v] * (((const vec *)x)[v] + (y ? ((const vec *)y)[v] : (vec){0}));
        to[r] = NAME(sum)(total);
    }
}

/* What a tile works on, a matrix each. z: hidden layers after their ReLU, which `pullback` turns into gradients. */
typedef struct {
    int rows;
    long stride;
    float *h, *gate, *a, *z[LAYERS], *masked[LAYERS], *dz, *moved, *image;
} NAME(Tile);
#define Tile NAME(Tile)

/* Click logits under a mask of the last layer, or without: (rows,). mask: of row 0, `apart` floats from row to row. */
TARGET static void NAME(heads)(const Network *net, const Tile *tile, const float *z, const float *mask,
                               const int32_t *place, long apart, float *logit)
{
    const int last = net->layers - 1, units = net->units[last];
    for (int r = 0; r < tile->rows; r++) {
        vec total = {0};
        for (int v = 0; v < net->padded[last] / LANES; v++) {
            vec x = ((const vec *)z)[v * tile->stride + r];
            if (mask) x *= NAME(load)(mask + place[r] * apart + v * LANES, units - v * LANES);
            total += x * ((const vec *)net->out)[v];
        }
        logit[r] = NAME(sum)(total) + net->out_bias;
    }
}

/* Hidden layers from `layer` on, each from the one below. */
TARGET static void NAME(layer)(const Network *net, const Tile *tile, int layer, const float *below, float *z)
{
    NAME(product)(tile->rows, tile->stride, net->padded[layer - 1], net->padded[layer], below, net->forward[layer],
                  net->bias[layer], 1, z, RELU);
}

/* z = relu(a + step dz), and f from there on: z of all layers, and the logits. */
TARGET static void NAME(forward)(const Network *net, const Tile *tile, const float *step, float *logit)
{
    for (int v = 0; v < net->padded[0] / LANES; v++)
        for (int r = 0; r < tile->rows; r++) {
            const long i = v * tile->stride + r;
            vec x = ((const vec *)tile->a)[i];
            if (step) x += step[r] * ((const vec *)tile->dz)[i];
            ((vec *)tile->z[0])[i] = NAME(where)(x, x);
        }
    for (int layer = 1; layer < net->layers; layer++)
        NAME(layer)(net, tile, layer, tile->z[layer - 1], tile->z[layer]);
    NAME(heads)(net, tile, tile->z[net->layers - 1], 0, 0, 0, logit);
}

/* u = df/da in place of z[0], f the click probability, without autograd. */
TARGET static void NAME(pullback)(const Network *net, const Tile *tile, const float *logit)
{
    const int last = net->layers - 1;
    for (int r = 0; r < tile->rows; r++) {
        const float p = sigmoid(logit[r]);
        for (int v = 0; v < net->padded[last] / LANES; v++) {
            vec *z = (vec *)tile->z[last] + v * tile->stride + r;
            *z = NAME(where)(p * (1.0f - p) * ((const vec *)net->out)[v], *z);
        }
    }
    for (int layer = last; layer > 0; layer--)
        NAME(product)(tile->rows, tile->stride, net->padded[layer], net->padded[layer - 1], tile->z[layer],
                      net->backward[layer], 0, 1, tile->z[layer - 1], SLOPE);
}

/* moved = W1 W1' u + onto: through the Gram matrix, or where it was not prepared through h. */
TARGET static void NAME(lift)(const Network *net, const Tile *tile, const float *onto)
{
    const int units = net->padded[0];
    const float *u = tile->z[0];
    if (net->gram) {
        NAME(product)(tile->rows, tile->stride, units, units, u, net->gram, onto, 0, tile->moved, LINEAR);
        return;
    }
    NAME(product)(tile->rows, tile->stride, units, net->width_padded, u, net->down, 0, 0, tile->image, LINEAR);
    NAME(product)(tile->rows, tile->stride, net->width_padded, units, tile->image, net->up, onto, 0, tile->moved,
                  LINEAR);
}

/* dz = x dz + y moved, row by row. */
TARGET static void NAME(combine)(const Network *net, const Tile *tile, const float *x, const float *y)
{
    for (int v = 0; v < net->padded[0] / LANES; v++)
        for (int r = 0; r < tile->rows; r++) {
            const long i = v * tile->stride + r;
            vec *dz = (vec *)tile->dz + i;
            const vec moved = y[r] * ((const vec *)tile->moved)[i];
            *dz = x ? x[r] * *dz + moved : moved;
        }
}

/* dy from y' and the draws, [1] eq. (8) and (9). */
TARGET static void NAME(uncertainty)(const Network *net, const Method *method, const Request *request,
                                     const Tile *tile, const int32_t *place, const float *p, float *dy)
{
    const int last = net->layers - 1;
    const long apart = request->mask_rows > 1 ? request->mask_units : 0;
    float logit[TILE], squares[TILE] = {0};
    for (long draw = 0; draw < request->draws; draw++) {
        const float *mask = request->masks + draw * request->mask_rows * request->mask_units;
        const float *z = tile->z[method->last_layer ? last : 0];
        for (int layer = 0; layer < last && !method->last_layer; mask += net->units[layer++]) {
            float *masked = tile->masked[layer];
            if (layer) NAME(layer)(net, tile, layer, z, masked), z = masked;
            for (int v = 0; v < net->padded[layer] / LANES; v++)
                for (int r = 0; r < tile->rows; r++) {
                    const long i = v * tile->stride + r;
                    const vec m = NAME(load)(mask + place[r] * apart + v * LANES, net->units[layer] - v * LANES);
                    ((vec *)masked)[i] = ((const vec *)z)[i] * m;
                }
            z = masked;
        }
        if (last && !method->last_layer) NAME(layer)(net, tile, last, z, tile->masked[last]), z = tile->masked[last];
        NAME(heads)(net, tile, z, mask, place, apart, logit);
        for (int r = 0; r < tile->rows; r++) {
            dy[r] = sigmoid(logit[r]) - p[r];
            squares[r] += dy[r] * dy[r];
        }
    }
    for (int r = 0; r < tile->rows && method->ucb; r++) dy[r] = sqrtf(squares[r] / (request->draws - 1));
}

/* dz = W1 g, the image of the direction; norm = |grad f|. z and logit: of a. radius: lambda |dy|. */
TARGET static void NAME(direction)(const Network *net, const Method *method, const Tile *tile, const float *radius,
                                   float *logit, float *norm)
{
    const int rows = tile->rows, units = net->padded[0], steps = method->pgd ? method->steps : 1;
    const float *u = tile->z[0];
    float along[TILE], size[TILE], x[TILE], y[TILE], ones[TILE];
    NAME(pullback)(net, tile, logit);
    NAME(lift)(net, tile, 0);
    NAME(dot)(rows, tile->stride, units, u, tile->moved, 0, norm);
    for (int r = 0; r < rows; r++) {
        norm[r] = length(norm[r]);  /* |grad f|^2 = u' W1 W1' u */
        const float stride = 2.5f / method->steps * radius[r];
        size[r] = !method->projected ? 1.0f : norm[r] > 0.0f ? fminf(stride, radius[r]) : 0.0f;
        y[r] = inverse(norm[r]) * size[r];  /* [1] eq. (10) */
        ones[r] = 1.0f;
    }
    NAME(combine)(net, tile, 0, y);
    for (int step = 1; step < steps; step++) {
        NAME(forward)(net, tile, ones, logit);
        NAME(pullback)(net, tile, logit);
        if (!method->projected) {  /* [1] eq. (11): |dz + grad f|^2 = 1 + 2 dz.grad f + |grad f|^2 */
            NAME(lift)(net, tile, tile->dz);
            NAME(dot)(rows, tile->stride, units, u, tile->dz, tile->moved, along);
            for (int r = 0; r < rows; r++) y[r] = inverse(length(1.0f + along[r]));
            NAME(combine)(net, tile, 0, y);
            continue;
        }
        NAME(lift)(net, tile, 0);
        NAME(dot)(rows, tile->stride, units, u, tile->moved, 0, y);
        NAME(dot)(rows, tile->stride, units, u, tile->dz, 0, along);
        for (int r = 0; r < rows; r++) {  /* 2.5 radius / T along the unit gradient, then back onto the ball */
            const float here = length(y[r]), pace = 2.5f / method->steps * radius[r] * inverse(here);
            const float far = length(size[r] * size[r] + 2.0f * pace * along[r] + pace * here * (pace * here));
            size[r] = fminf(far, radius[r]);
            x[r] = size[r] * inverse(far);
            y[r] = pace * x[r];
        }
        NAME(combine)(net, tile, x, y);
    }
    for (int r = 0; r < rows && method->projected; r++) x[r] = inverse(size[r]), y[r] = 0.0f;
    if (method->projected) NAME(combine)(net, tile, x, y);
}

/* y_s, [1] eq. (13): the threshold's logits. */
TARGET static void NAME(gate)(const Network *net, const Tile *tile, float *logit)
{
    NAME(product)(tile->rows, tile->stride, net->item_padded, net->gate_units, tile->h, net->gate, net->gate_bias, 1,
                  tile->gate, RELU);
    for (int r = 0; r < tile->rows; r++) {
        vec total = {0};
        for (int v = 0; v < net->gate_units / LANES; v++)
            total += ((const vec *)tile->gate)[v * tile->stride + r] * ((const vec *)net->gate_out)[v];
        logit[r] = NAME(sum)(total) + net->gate_out_bias;
    }
}

/* The rows at `place`, in their order, to the front. */
TARGET static void NAME(keep)(const Tile *tile, int width, const int32_t *place, int count, float *matrix)
{
    for (int v = 0; v < width / LANES; v++)
        for (int i = 0; i < count; i++)
            ((vec *)matrix)[v * tile->stride + i] = ((const vec *)matrix)[v * tile->stride + place[i]];
}

/* The candidates from..from + tile->rows of a request; first: the context's share of a, (H,). */
TARGET static int NAME(tile)(const Network *net, const Method *method, const Request *request, Tile *tile,
                             const float *first, int from, float *row)
{
    const int rows = tile->rows, last = net->layers - 1;
    float p[TILE], logit[TILE], threshold[TILE], dy[TILE], norm[TILE], step[TILE], radius[TILE];
    float *column[6];
    int32_t place[TILE];
    for (int i = 0; i < 6; i++) column[i] = request->scores + (long)i * request->rows + from;
    for (int r = 0; r < rows; r++)
        if (!reach(&net->item, request->item_index + (long)(from + r) * net->item.slots)) return BAD_ITEM;
    for (int r = 0; r < rows; r++) {
        const long at = (long)(from + r) * net->item.slots;
        embed(&net->item, request->item_index + at, request->item_weight + at, row);
        for (int v = 0; v < net->item_padded / LANES; v++)
            ((vec *)tile->h)[v * tile->stride + r] = ((const vec *)row)[v];
    }
    NAME(product)(rows, tile->stride, net->item_padded, net->padded[0], tile->h, net->first_item, first, 1, tile->a,
                  LINEAR);
    NAME(forward)(net, tile, 0, logit);
    if (method->gate == LEARNED_GATE) NAME(gate)(net, tile, threshold);
    int count = 0;
    for (int r = 0; r < rows; r++) {
        p[r] = sigmoid(logit[r]);  /* y', [1] eq. (2) */
        threshold[r] = method->gate == LEARNED_GATE ? sigmoid(threshold[r]) : method->threshold;
        const int open = p[r] >= threshold[r] && request->impressions[from + r] < method->max_impressions;
        const float scores[6] = {p[r], p[r], 0.0f, open ? 1.0f : 0.0f, threshold[r], 0.0f};
        for (int i = 0; i < 6; i++) column[i][r] = scores[i];
        if (open) place[count++] = r;
    }
    if (count == 0) return OK;
    NAME(keep)(tile, net->padded[0], place, count, tile->a);
    for (int layer = 0; layer <= last; layer++) NAME(keep)(tile, net->padded[layer], place, count, tile->z[layer]);
    for (int i = 0; i < count; i++) p[i] = p[place[i]], logit[i] = logit[place[i]], place[i] += from;
    tile->rows = count;
    NAME(uncertainty)(net, method, request, tile, place, p, dy);
    for (int i = 0; i < count; i++) step[i] = request->lambda * dy[i], radius[i] = fabsf(step[i]);
    NAME(direction)(net, method, tile, radius, logit, norm);
    NAME(forward)(net, tile, step, logit);
    for (int i = 0; i < count; i++) {  /* [1] eq. (14); without a step f(h) to the bit */
        const int r = place[i] - from;
        if (step[i] * norm[i] != 0.0f) column[1][r] = sigmoid(logit[i]);
        column[2][r] = dy[i];
        column[5][r] = norm[i];
    }
    return OK;
}

/* A part of the memory, of whole vectors, as they are all aligned; without memory only counts. */
static float *NAME(take)(float *memory, size_t *used, size_t floats)
{
    float *part = memory ? memory + *used : 0;
    *used += floats;
    return part;
}

/* The tile's matrices in `memory`; returns how many floats they take. */
static size_t NAME(place)(const Network *net, Tile *tile, float *memory)
{
    size_t used = 0;
    tile->h = NAME(take)(memory, &used, net->item_padded * tile->stride);
    tile->gate = NAME(take)(memory, &used, net->gate_units * tile->stride);
    tile->a = NAME(take)(memory, &used, net->padded[0] * tile->stride);
    tile->dz = NAME(take)(memory, &used, net->padded[0] * tile->stride);
    tile->moved = NAME(take)(memory, &used, net->padded[0] * tile->stride);
    tile->image = NAME(take)(memory, &used, net->gram ? 0 : net->width_padded * tile->stride);
    for (int layer = 0; layer < net->layers; layer++) {
        tile->z[layer] = NAME(take)(memory, &used, net->padded[layer] * tile->stride);
        /* `moved` is free while masks are drawn. */
        tile->masked[layer] = layer ? NAME(take)(memory, &used, net->padded[layer] * tile->stride) : tile->moved;
    }
    return used;
}

TARGET static int NAME(scores)(const Network *net, const Method *method, const Request *request)
{
    if (request->rows == 0) return OK;
    const int tiles = (request->rows + TILE - 1) / TILE;
    Tile tile = {.stride = (request->rows + tiles - 1) / tiles | 1};
    const size_t matrices = NAME(place)(net, &tile, 0), floats = matrices + net->padded[0] + net->width_padded;
    float *memory = aligned_alloc(64, (sizeof *memory * floats + 63) / 64 * 64);
    if (!memory) return NO_MEMORY;
    NAME(place)(net, &tile, memory);
    float *first = memory + matrices, *row = first + net->padded[0];
    memset(row, 0, sizeof *row * net->width_padded);
    int result = reach(&net->context, request->context_index) ? OK : BAD_CONTEXT;
    if (result == OK) embed(&net->context, request->context_index, request->context_weight, row);
    NAME(product)(1, 1, net->context_padded, net->padded[0], row, net->first_context, net->bias[0], 1, first, LINEAR);
    memset(row, 0, sizeof *row * net->width_padded);
    for (int i = 0; i < tiles && result == OK; i++) {
        const int from = (long)i * request->rows / tiles;
        tile.rows = (long)(i + 1) * request->rows / tiles - from;
        result = NAME(tile)(net, method, request, &tile, first, from, row);
    }
    free(memory);
    return result;
}

#undef vec
#undef ints
#undef Tile
#undef INLINE
#undef EACH_ROW
#undef LINEAR
#undef RELU
#undef SLOPE
#undef PATH
#undef TARGET
#undef LANES
#undef BLOCK
