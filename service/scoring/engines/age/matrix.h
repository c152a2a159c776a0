/* Vectors and matrices, for one instruction set: PATH its name, TARGET its attribute, LANES and BLOCK its sizes.
 *
 * A matrix of activations, (rows, width), is stored in vectors: vector v of row r stands at (v stride + r) LANES. So
 * the rows of a block are at constant distances, for the product that reads them and for the one that wrote them;
 * stride is odd, lest the vectors of one row fall into the same set of the L1 cache. Every number of a row comes of the
 * same operations in the same order, whatever the rows beside it: a candidate has the same score, to the bit, in any
 * company.
 */

typedef float NAME(vec) __attribute__((vector_size(4 * LANES)));
typedef int32_t NAME(ints) __attribute__((vector_size(4 * LANES)));
#define vec NAME(vec)
#define ints NAME(ints)
#define INLINE TARGET static inline __attribute__((always_inline))
#define EACH UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < wide; v++)

enum { NAME(LINEAR), NAME(RELU), NAME(SLOPE) };
enum { NAME(wide) = WIDE };
#define LINEAR NAME(LINEAR)
#define RELU NAME(RELU)
#define SLOPE NAME(SLOPE)

/* 0 where gate <= 0, else x: ReLU is where(x, x), and so is its derivative's product, where(x, z). What is not a
 * number stays so, lest a score that means nothing looked like one. */
INLINE vec NAME(where)(vec x, vec gate) { return (vec)((ints)x & ~(gate <= (vec){0})); }

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

/* `rows` rows of one panel, `wide` vectors each (both constants): they stay in registers over the whole depth. */
INLINE void NAME(block)(const int rows, const int wide, long stride, int depth, const vec *a, const vec *panel,
                        const vec *start, long start_stride, int start_row, vec *out, int finish)
{
    vec sum[BLOCK][WIDE];
    EACH sum[r][v] = start ? start[v * start_stride + r * start_row] : (vec){0};
    for (int k = 0; k < depth; k += LANES, a += stride)
        for (int lane = 0; lane < LANES; lane++, panel += wide) {
            const float *x = (const float *)a + lane;
            EACH sum[r][v] += x[r * LANES] * panel[v];
        }
    if (finish == RELU) EACH sum[r][v] = NAME(where)(sum[r][v], sum[r][v]);
    if (finish == SLOPE) EACH sum[r][v] = NAME(where)(sum[r][v], out[v * stride + r]);
    EACH out[v * stride + r] = sum[r][v];
}

/* out = finish(start + a w): (rows, depth) (depth, width) -> (rows, width).
 *
 * w: panels of WIDE vectors, the last one of as many as are left, each (depth, its vectors).
 * start: nothing, one row for all (shared), or a matrix.
 * finish: LINEAR; RELU; or SLOPE, 0 where out was not above 0 before: a step back through the ReLU that made out. */
TARGET static void NAME(product)(int rows, long stride, int depth, int width, const float *a, const float *w,
                                 const float *start, int shared, float *out, int finish)
{
    const int blocks = (rows + BLOCK - 1) / BLOCK;
    const long start_stride = shared ? 1 : stride, start_row = shared ? 0 : 1;
    for (int v = 0; v < width / LANES; v += WIDE)
        for (int block = 0; block < blocks; block++) {
            const int from = block * rows / blocks, count = (block + 1) * rows / blocks - from;  /* as even as can be */
            const int wide = width / LANES - v < WIDE ? width / LANES - v : WIDE;
            const vec *at = (const vec *)a + from, *panel = (const vec *)w + (long)v * depth;
            const vec *begin = start ? (const vec *)start + v * start_stride + from * start_row : 0;
            vec *to = (vec *)out + v * stride + from;
            switch (wide * BLOCK + count) {
#define CASE(rows, wide)                                                                                        \
    case wide * BLOCK + rows:                                                                                   \
        NAME(block)(rows, wide, stride, depth, at, panel, begin, start_stride, start_row, to, finish);          \
        break;
#define CASES(wide) CASE(1, wide) CASE(2, wide) CASE(3, wide) CASE(4, wide) CASE(5, wide) CASE(6, wide)
                CASES(1) CASES(2)
#if WIDE > 2
                CASES(3) CASES(4)
#endif
#undef CASES
#undef CASE
            }
        }
}

/* Row by row u (x + y): (rows, width), (rows, width), (rows, width) or nothing -> (rows,) */
TARGET static void NAME(dot)(int rows, long stride, int width, const float *u, const float *x, const float *y,
                             float *to)
{
    for (int r = 0; r < rows; r++) {
        vec total = {0};
        for (long v = r; v < width / LANES * stride; v += stride)
            total += ((const vec *)u)[v] * (((const vec *)x)[v] + (y ? ((const vec *)y)[v] : (vec){0}));
        to[r] = NAME(sum)(total);
    }
}
