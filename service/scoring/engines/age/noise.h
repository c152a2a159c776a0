/* Dropout masks from a key: models/noise.py, under the same names. */

/* SplitMix64's finaliser. */
static inline uint64_t mixed(uint64_t x)
{
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static const uint64_t GOLDEN = 0x9E3779B97F4A7C15u;

static uint64_t combine(uint64_t key, uint64_t other) { return mixed(mixed(key) + GOLDEN + other); }

/* One row of masks, (draws, units), `apart` floats from draw to draw. */
static void dropout(uint64_t key, int draws, int units, size_t apart, double rate, float *masks)
{
    const float limit = (float)rate, kept = 1.0f / (float)(1.0 - rate);
    uint64_t counter = mixed(key);
    for (int draw = 0; draw < draws; draw++)
        for (int unit = 0; unit < units; unit++) {
            counter += GOLDEN;
            masks[draw * apart + unit] = (float)(mixed(counter) >> 40) * 0x1p-24f >= limit ? kept : 0.0f;
        }
}
