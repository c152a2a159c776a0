/* Predictions under dropout, and the uncertainty that they tell. */

#include "network.h"

/* The units that a mask drops, and by what it multiplies the others; their number, or -1: they are not few, or those
 * kept are not all multiplied alike. */
static int NAME(few)(const float *mask, int units, int32_t *dropped, float *scale)
{
    int count = 0;
    *scale = 0.0f;
    for (int k = 0; k < units; k++)
        if (mask[k] == 0.0f) {
            dropped[count++] = k;
            if (8 * count > units) return -1;
        } else if (*scale == 0.0f) {
            *scale = mask[k];
        } else if (mask[k] != *scale) {
            return -1;
        }
    return count;
}

/* The second layer from a first one that lacks a few units. base = W2 z + b2 is known, so that only they have to be
 * taken out of it: relu(scale (base - b2 - W2 z[dropped]) + b2). */
TARGET static void NAME(without)(const Network *net, const Tile *tile, int count, float scale, float *z)
{
    for (int v = 0; v < net->padded[1] / LANES; v++) {
        const vec bias = ((const vec *)net->bias[1])[v];
        const int first = v / WIDE * WIDE, left = net->padded[1] / LANES - first, wide = left < WIDE ? left : WIDE;
        const vec *column = (const vec *)net->forward[1] + (long)first * net->padded[0] + v - first;
        for (int r = 0; r < tile->rows; r++) {
            vec x = AT(tile->base, v, r) - bias;
            for (int i = 0; i < count; i++) {
                const int k = tile->dropped[i];
                x -= ((const float *)&AT(tile->z[0], k / LANES, r))[k % LANES] * column[(long)wide * k];
            }
            x = scale * x + bias;
            AT(z, v, r) = NAME(where)(x, x);
        }
    }
}

/* The logits under one mask, of the last layer or of all of them in their order, to `step`. apart: floats from a
 * candidate's mask to the next one's, 0 where they share it. */
TARGET static void NAME(draw)(const Network *net, const Method *method, Tile *tile, const float *mask, long apart)
{
    const int last = net->layers - 1;
    int layer = method->last_layer ? last : 0, count = -1;
    const float *z = tile->z[layer];
    float scale;
    if (layer < last && !apart) count = NAME(few)(mask, net->units[0], tile->dropped, &scale);
    if (count >= 0) {
        mask += net->units[layer++];
        NAME(without)(net, tile, count, scale, tile->masked[layer]);
        z = tile->masked[layer];
    }
    for (; layer < last; mask += net->units[layer++]) {
        for (int v = 0; v < net->padded[layer] / LANES; v++)
            for (int r = 0; r < tile->rows; r++) {
                const float *from = mask + tile->place[r] * apart + v * LANES;
                AT(tile->masked[layer], v, r) = AT(z, v, r) * NAME(load)(from, net->units[layer] - v * LANES);
            }
        z = tile->masked[layer + 1];
        NAME(layer)(net, tile, layer + 1, tile->masked[layer], tile->masked[layer + 1], RELU);
    }
    NAME(heads)(tile, net->padded[last], z, mask, apart, net->units[last], net->out, net->out_bias, tile->step);
}

/* dy from y' and the draws, [1] eq. (8) and (9). */
TARGET static void NAME(uncertainty)(const Network *net, const Method *method, const Request *request, Tile *tile)
{
    const long size = (long)request->mask_rows * request->mask_units;
    float squares[TILE] = {0};
    for (int draw = 0; draw < request->draws; draw++) {
        NAME(draw)(net, method, tile, request->masks + draw * size, method->own_masks ? request->mask_units : 0);
        for (int r = 0; r < tile->rows; r++) {
            tile->dy[r] = sigmoid(tile->step[r]) - tile->p[r];
            squares[r] += tile->dy[r] * tile->dy[r];
        }
    }
    for (int r = 0; r < tile->rows && method->ucb; r++) tile->dy[r] = sqrtf(squares[r] / (request->draws - 1));
}
