/* f, its gradient and its gate, for all rows of a tile: models/networks/click.py. */

#include "matrix.h"

/* Some candidates of a request: a number of each, and matrices with a row for each. */
typedef struct {
    int rows;
    long stride;
    int32_t place[TILE];  /* among the candidates of the request */
    float p[TILE], logit[TILE], threshold[TILE], dy[TILE], norm[TILE], step[TILE];
    float *h, *gate, *a;
    float *z[LAYERS];              /* hidden layers after their ReLU; `pullback` turns them into gradients */
    float *base, *masked[LAYERS];  /* of the draws */
    float *dz, *moved, *image;     /* of the direction */
    int32_t *dropped;
} NAME(Tile);
#define Tile NAME(Tile)
#define AT(matrix, v, r) ((vec *)(matrix))[(v) * tile->stride + (r)]

/* Row by row z weight + bias: (rows, width), (width,) -> (rows,). factor: of row 0's z, `apart` floats from place to
 * place, `units` long; or nothing. */
TARGET static void NAME(heads)(const Tile *tile, int width, const float *z, const float *factor, long apart, int units,
                               const float *weight, float bias, float *to)
{
    for (int r = 0; r < tile->rows; r++) {
        vec total = {0};
        for (int v = 0; v < width / LANES; v++) {
            vec x = AT(z, v, r);
            if (factor) x *= NAME(load)(factor + tile->place[r] * apart + v * LANES, units - v * LANES);
            total += x * ((const vec *)weight)[v];
        }
        to[r] = NAME(sum)(total) + bias;
    }
}

/* A hidden layer from the one below. */
TARGET static void NAME(layer)(const Network *net, const Tile *tile, int layer, const float *below, float *z,
                               int finish)
{
    NAME(product)(tile->rows, tile->stride, net->padded[layer - 1], net->padded[layer], below, net->forward[layer],
                  net->bias[layer], 1, z, finish);
}

/* relu(from), (rows, width). */
TARGET static void NAME(relu)(const Tile *tile, int width, const float *from, float *to)
{
    for (int v = 0; v < width / LANES; v++)
        for (int r = 0; r < tile->rows; r++) AT(to, v, r) = NAME(where)(AT(from, v, r), AT(from, v, r));
}

/* z = relu(a + step dz), or relu(a) without a step, and f from there on: all hidden layers, and the logits. With `keep`
 * the second layer stays in `base` as it was before its ReLU, for the draws to start from. */
TARGET static void NAME(forward)(const Network *net, Tile *tile, const float *step, int keep)
{
    const int last = net->layers - 1;
    for (int v = 0; v < net->padded[0] / LANES && step; v++)
        for (int r = 0; r < tile->rows; r++) {
            const vec x = AT(tile->a, v, r) + step[r] * AT(tile->dz, v, r);
            AT(tile->z[0], v, r) = NAME(where)(x, x);
        }
    if (!step) NAME(relu)(tile, net->padded[0], tile->a, tile->z[0]);
    for (int layer = 1; layer <= last; layer++) {
        const int kept = keep && layer == 1;
        NAME(layer)(net, tile, layer, tile->z[layer - 1], kept ? tile->base : tile->z[layer], kept ? LINEAR : RELU);
        if (kept) NAME(relu)(tile, net->padded[1], tile->base, tile->z[1]);
    }
    NAME(heads)(tile, net->padded[last], tile->z[last], 0, 0, 0, net->out, net->out_bias, tile->logit);
}

/* u = df/da in place of z[0], f the click probability: what autograd would find. */
TARGET static void NAME(pullback)(const Network *net, const Tile *tile)
{
    const int last = net->layers - 1;
    for (int r = 0; r < tile->rows; r++) {
        const float p = sigmoid(tile->logit[r]), slope = p * (1.0f - p);
        for (int v = 0; v < net->padded[last] / LANES; v++)
            AT(tile->z[last], v, r) = NAME(where)(slope * ((const vec *)net->out)[v], AT(tile->z[last], v, r));
    }
    for (int layer = last; layer > 0; layer--)
        NAME(product)(tile->rows, tile->stride, net->padded[layer], net->padded[layer - 1], tile->z[layer],
                      net->backward[layer], 0, 1, tile->z[layer - 1], SLOPE);
}

/* moved = W1 W1' u + onto: by the Gram matrix, or, where there is none, by way of h. */
TARGET static void NAME(lift)(const Network *net, const Tile *tile, const float *onto)
{
    const int units = net->padded[0], width = net->width_padded;
    const float *from = tile->z[0], *last = net->gram;
    if (!net->gram) {
        NAME(product)(tile->rows, tile->stride, units, width, from, net->down, 0, 1, tile->image, LINEAR);
        from = tile->image, last = net->up;
    }
    NAME(product)(tile->rows, tile->stride, net->gram ? units : width, units, from, last, onto, 0, tile->moved, LINEAR);
}

/* The logits of y_s, [1] eq. (13). */
TARGET static void NAME(gate)(const Network *net, Tile *tile)
{
    NAME(product)(tile->rows, tile->stride, net->item_padded, net->gate_units, tile->h, net->gate, net->gate_bias, 1,
                  tile->gate, RELU);
    NAME(heads)(tile, net->gate_units, tile->gate, 0, 0, 0, net->gate_out, net->gate_out_bias, tile->threshold);
}
