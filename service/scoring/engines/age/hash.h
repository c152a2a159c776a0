/* xxh3-64 with a seed, of texts of up to 240 bytes: what the Python package of that name computes, one call for all
 * features of a request. The algorithm, and its names here, are those of
 * github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md. */

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "texts are read as numbers of a little-endian machine"
#endif

enum { LONGEST_TEXT = 240 };

static const uint64_t PRIME64_1 = 0x9E3779B185EBCA87u, PRIME64_2 = 0xC2B2AE3D27D4EB4Fu, PRIME64_3 = 0x165667B19E3779F9u;
static const uint64_t PRIME_MX1 = 0x165667919E3779F9u, PRIME_MX2 = 0x9FB21C651E98DF25u;

static const uint8_t secret[192] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

static inline uint64_t read64(const void *from)
{
    uint64_t x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline uint64_t read32(const void *from)
{
    uint32_t x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline uint64_t flip(int at) { return read64(secret + at) ^ read64(secret + at + 8); }

static inline uint64_t rotate(uint64_t x, int by) { return x << by | x >> (64 - by); }

static inline uint64_t fold(uint64_t x, uint64_t y)
{
    const unsigned __int128 product = (unsigned __int128)x * y;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t mix16(const uint8_t *text, int at, uint64_t seed)
{
    return fold(read64(text) ^ (read64(secret + at) + seed), read64(text + 8) ^ (read64(secret + at + 8) - seed));
}

static inline uint64_t avalanche(uint64_t x)
{
    x = (x ^ x >> 37) * PRIME_MX1;
    return x ^ x >> 32;
}

static inline uint64_t avalanche_xxh64(uint64_t x)
{
    x = (x ^ x >> 33) * PRIME64_2;
    x = (x ^ x >> 29) * PRIME64_3;
    return x ^ x >> 32;
}

static inline uint64_t up_to_3(const uint8_t *text, uint64_t size, uint64_t seed)
{
    if (!size) return avalanche_xxh64(seed ^ flip(56));
    const uint64_t all = (uint64_t)text[0] << 16 | (uint64_t)text[size >> 1] << 24 | text[size - 1] | size << 8;
    return avalanche_xxh64(all ^ ((read32(secret) ^ read32(secret + 4)) + seed));
}

static inline uint64_t up_to_8(const uint8_t *text, uint64_t size, uint64_t seed)
{
    seed ^= (uint64_t)__builtin_bswap32((uint32_t)seed) << 32;
    uint64_t x = (read32(text + size - 4) + (read32(text) << 32)) ^ (flip(8) - seed);
    x = (x ^ rotate(x, 49) ^ rotate(x, 24)) * PRIME_MX2;
    x = (x ^ ((x >> 35) + size)) * PRIME_MX2;
    return x ^ x >> 28;
}

static inline uint64_t up_to_16(const uint8_t *text, uint64_t size, uint64_t seed)
{
    const uint64_t low = read64(text) ^ (flip(24) + seed), high = read64(text + size - 8) ^ (flip(40) - seed);
    return avalanche(size + __builtin_bswap64(low) + high + fold(low, high));
}

static uint64_t up_to_128(const uint8_t *text, uint64_t size, uint64_t seed)
{
    uint64_t sum = size * PRIME64_1;
    for (int i = (int)(size - 1) / 32; i >= 0; i--)
        sum += mix16(text + 16 * i, 32 * i, seed) + mix16(text + size - 16 * (i + 1), 32 * i + 16, seed);
    return avalanche(sum);
}

static uint64_t up_to_240(const uint8_t *text, uint64_t size, uint64_t seed)
{
    uint64_t sum = size * PRIME64_1;
    for (int i = 0; i < 8; i++) sum += mix16(text + 16 * i, 16 * i, seed);
    sum = avalanche(sum);
    for (int i = 8; i < (int)size / 16; i++) sum += mix16(text + 16 * i, 16 * (i - 8) + 3, seed);
    return avalanche(sum + mix16(text + size - 16, 136 - 17, seed));
}

static uint64_t hash(const uint8_t *text, uint64_t size, uint64_t seed)
{
    if (size <= 3) return up_to_3(text, size, seed);
    if (size <= 8) return up_to_8(text, size, seed);
    if (size <= 16) return up_to_16(text, size, seed);
    return size <= 128 ? up_to_128(text, size, seed) : up_to_240(text, size, seed);
}
