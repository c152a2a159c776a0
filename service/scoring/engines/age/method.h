/* The method over one tile, and over all tiles of a request: models/exploration/age.py. */

#include "draws.h"

/* dz = x dz + y moved, row by row; without x dz = y moved. */
TARGET static void NAME(combine)(const Network *net, const Tile *tile, const float *x, const float *y)
{
    for (int v = 0; v < net->padded[0] / LANES; v++)
        for (int r = 0; r < tile->rows; r++) {
            const vec moved = y[r] * AT(tile->moved, v, r);
            AT(tile->dz, v, r) = x ? x[r] * AT(tile->dz, v, r) + moved : moved;
        }
}

/* [1] eq. (11) from t = 2 on; dz is the image of a unit vector throughout. */
TARGET static void NAME(literal)(const Network *net, const Method *method, Tile *tile, const float *ones)
{
    const int units = net->padded[0];
    float y[TILE];
    for (int step = 1; step < method->steps; step++) {
        NAME(forward)(net, tile, ones, 0);
        NAME(pullback)(net, tile);
        NAME(lift)(net, tile, tile->dz);  /* of dz + grad f(h + dz), whose length^2 is 1 + 2 dz.grad f + |grad f|^2 */
        NAME(dot)(tile->rows, tile->stride, units, tile->z[0], tile->dz, tile->moved, y);
        for (int r = 0; r < tile->rows; r++) y[r] = inverse(length(1.0f + y[r]));
        NAME(combine)(net, tile, 0, y);
    }
}

/* Steps of 2.5 radius / T along the unit gradient, each then projected onto the ball. size: the length of dz. */
TARGET static void NAME(projected)(const Network *net, const Method *method, Tile *tile, const float *ones,
                                   float *size)
{
    const int units = net->padded[0];
    float along[TILE], x[TILE], y[TILE];
    for (int step = 1; step < method->steps; step++) {
        NAME(forward)(net, tile, ones, 0);
        NAME(pullback)(net, tile);
        NAME(lift)(net, tile, 0);
        NAME(dot)(tile->rows, tile->stride, units, tile->z[0], tile->moved, 0, y);
        NAME(dot)(tile->rows, tile->stride, units, tile->z[0], tile->dz, 0, along);
        for (int r = 0; r < tile->rows; r++) {
            const float radius = fabsf(tile->step[r]), norm = length(y[r]);
            const float pace = 2.5f / method->steps * radius * inverse(norm);
            const float far = length(size[r] * size[r] + 2.0f * pace * along[r] + pace * norm * (pace * norm));
            size[r] = fminf(far, radius);
            x[r] = size[r] * inverse(far);
            y[r] = pace * x[r];
        }
        NAME(combine)(net, tile, x, y);
    }
    for (int r = 0; r < tile->rows; r++) x[r] = inverse(size[r]), y[r] = 0.0f;
    NAME(combine)(net, tile, x, y);
}

/* dz = W1 g, the image of the direction, and norm = |grad f|. z and logit are those of a, step is lambda dy. */
TARGET static void NAME(direction)(const Network *net, const Method *method, Tile *tile)
{
    float ones[TILE], size[TILE], y[TILE];
    NAME(pullback)(net, tile);
    NAME(lift)(net, tile, 0);
    NAME(dot)(tile->rows, tile->stride, net->padded[0], tile->z[0], tile->moved, 0, tile->norm);
    for (int r = 0; r < tile->rows; r++) {
        const float radius = fabsf(tile->step[r]);
        tile->norm[r] = length(tile->norm[r]);  /* |grad f|^2 = u' W1 W1' u */
        ones[r] = 1.0f;
        size[r] = 1.0f;
        if (method->projected) size[r] = tile->norm[r] > 0.0f ? fminf(2.5f / method->steps * radius, radius) : 0.0f;
        y[r] = size[r] * inverse(tile->norm[r]);  /* [1] eq. (10) */
    }
    NAME(combine)(net, tile, 0, y);
    if (method->projected) NAME(projected)(net, method, tile, ones, size);
    else if (method->pgd) NAME(literal)(net, method, tile, ones);
}

/* The first rows of a matrix become those at `place`, in their order. */
TARGET static void NAME(keep)(const Tile *tile, int width, int count, float *matrix)
{
    for (int v = 0; v < width / LANES; v++)
        for (int i = 0; i < count; i++) AT(matrix, v, i) = AT(matrix, v, tile->place[i]);
}

/* Writes the scores of a tile without exploration. Only the candidates whose gate is open stay in it. */
TARGET static void NAME(open)(const Network *net, const Method *method, const Request *request, Tile *tile, int from)
{
    int count = 0;
    for (int r = 0; r < tile->rows; r++) {
        const float p = sigmoid(tile->logit[r]);  /* y', [1] eq. (2) */
        const float threshold = method->gate == LEARNED_GATE ? sigmoid(tile->threshold[r]) : method->threshold;
        const int open = p >= threshold && request->impressions[from + r] < method->max_impressions;
        unexplored(request, from + r, p, open, threshold);
        if (!open) continue;
        tile->p[count] = p;
        tile->logit[count] = tile->logit[r];
        tile->place[count++] = r;
    }
    NAME(keep)(tile, net->padded[0], count, tile->a);
    if (net->layers > 1) NAME(keep)(tile, net->padded[1], count, tile->base);
    for (int layer = 0; layer < net->layers; layer++) NAME(keep)(tile, net->padded[layer], count, tile->z[layer]);
    for (int i = 0; i < count; i++) tile->place[i] += from;
    tile->rows = count;
}

/* The candidates from `from` on. first: the context's share of a, (H,). row: room for an embedding, 0 beyond it. */
TARGET static int NAME(tile)(const Network *net, const Method *method, const Request *request, Tile *tile,
                             const float *first, int from, float *row)
{
    const Side *item = &net->item;
    for (int r = 0; r < tile->rows; r++)
        if (!reach(item, request->item_index + (size_t)(from + r) * item->slots)) return BAD_ITEM;
    for (int r = 0; r < tile->rows; r++) {
        const size_t at = (size_t)(from + r) * item->slots;
        embed(item, request->item_index + at, request->item_weight + at, row);
        for (int v = 0; v < net->item_padded / LANES; v++) AT(tile->h, v, r) = ((const vec *)row)[v];
    }
    NAME(product)(tile->rows, tile->stride, net->item_padded, net->padded[0], tile->h, net->first_item, first, 1,
                  tile->a, LINEAR);
    NAME(forward)(net, tile, 0, method != NULL);
    if (!method) {
        for (int r = 0; r < tile->rows; r++) unexplored(request, from + r, sigmoid(tile->logit[r]), 0, 0.0f);
        return OK;
    }
    if (method->gate == LEARNED_GATE) NAME(gate)(net, tile);
    NAME(open)(net, method, request, tile, from);
    if (!tile->rows) return OK;
    NAME(uncertainty)(net, method, request, tile);
    for (int r = 0; r < tile->rows; r++) tile->step[r] = request->lambda * tile->dy[r];
    NAME(direction)(net, method, tile);
    NAME(forward)(net, tile, tile->step, 0);
    for (int r = 0; r < tile->rows; r++) {  /* [1] eq. (14); without a step it stays f(h), to the bit */
        float *score = request->scores + tile->place[r];
        if (tile->step[r] * tile->norm[r] != 0.0f) score[1 * (size_t)request->rows] = sigmoid(tile->logit[r]);
        score[2 * (size_t)request->rows] = tile->dy[r];
        score[5 * (size_t)request->rows] = tile->norm[r];
    }
    return OK;
}

/* Gives the tile its matrices in `memory`; tells how many floats they take. Without memory it only tells. */
static size_t NAME(lay)(const Network *net, Tile *tile, float *memory)
{
    size_t used = 0;
#define TAKE(width) (used += (width) * tile->stride, memory ? memory + used - (width) * tile->stride : 0)
    tile->h = TAKE(net->item_padded);
    tile->gate = TAKE(net->gate_units);
    tile->a = TAKE(net->padded[0]);
    tile->dz = TAKE(net->padded[0]);
    tile->moved = TAKE(net->padded[0]);
    tile->image = TAKE(net->gram ? 0 : net->width_padded);
    tile->base = TAKE(net->layers > 1 ? net->padded[1] : 0);
    for (int layer = 0; layer < net->layers; layer++) {
        tile->z[layer] = TAKE(net->padded[layer]);
        tile->masked[layer] = layer ? TAKE(net->padded[layer]) : tile->moved;  /* free while masks are drawn */
    }
    tile->dropped = (int32_t *)TAKE(net->padded[0]);
#undef TAKE
    return used;
}

TARGET static int NAME(scores)(const Network *net, const Method *method, const Request *request)
{
    if (request->rows == 0) return OK;
    const int tiles = (request->rows + TILE - 1) / TILE;
    Tile tile = {.stride = (request->rows + tiles - 1) / tiles | 1};
    const size_t matrices = NAME(lay)(net, &tile, 0), floats = matrices + net->padded[0] + net->width_padded;
    float *memory = aligned_alloc(64, (sizeof *memory * floats + 63) / 64 * 64);
    if (!memory) return NO_MEMORY;
    NAME(lay)(net, &tile, memory);
    float *first = memory + matrices, *row = first + net->padded[0];
    int result = reach(&net->context, request->context_index) ? OK : BAD_CONTEXT;
    memset(row, 0, sizeof *row * net->width_padded);
    if (result == OK) embed(&net->context, request->context_index, request->context_weight, row);
    NAME(product)(1, 1, net->context_padded, net->padded[0], row, net->first_context, net->bias[0], 1, first, LINEAR);
    memset(row, 0, sizeof *row * net->width_padded);
    for (int i = 0; i < tiles && result == OK; i++) {
        const int from = (int)((long)i * request->rows / tiles);
        tile.rows = (int)((long)(i + 1) * request->rows / tiles) - from;
        result = NAME(tile)(net, method, request, &tile, first, from, row);
    }
    free(memory);
    return result;
}

#undef AT
#undef EACH
#undef INLINE
#undef LANES
#undef LINEAR
#undef PATH
#undef RELU
#undef SLOPE
#undef TARGET
#undef Tile
#undef WIDE
#undef ints
#undef vec
