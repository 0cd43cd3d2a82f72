// Vectors of floats and the few functions on them that the kernels need. Included inside each instruction-set
// namespace: compilers lower an 8-wide vector to what the set has. No include guard, on purpose.

#define ATROUS_INLINE static inline __attribute__((always_inline))

typedef float Float4 __attribute__((vector_size(16)));
typedef float Float8 __attribute__((vector_size(32)));
typedef std::int32_t Int4 __attribute__((vector_size(16)));
typedef std::int32_t Int8 __attribute__((vector_size(32)));
typedef std::uint16_t Short8 __attribute__((vector_size(16)));

/// The integers as wide as the floats of V.
template <typename V>
struct Bits;
template <>
struct Bits<float> {
    using Type = std::int32_t;
};
template <>
struct Bits<Float4> {
    using Type = Int4;
};
template <>
struct Bits<Float8> {
    using Type = Int8;
};

template <typename V>
ATROUS_INLINE V load(const float* from) {
    V value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
}

template <typename V>
ATROUS_INLINE void store(float* to, V value) {
    __builtin_memcpy(to, &value, sizeof value);
}

/// `value` where `mask` is -1, zero where it is 0: a condition without a branch.
template <typename V>
ATROUS_INLINE V masked(V value, std::int32_t mask) {
    typename Bits<V>::Type bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    bits &= mask;
    __builtin_memcpy(&value, &bits, sizeof bits);
    return value;
}

ATROUS_INLINE Float8 bits_as_float(Int8 bits) {
    Float8 value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

ATROUS_INLINE Int8 float_as_bits(Float8 value) {
    Int8 bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

/// Whole numbers below 2^16.
template <typename V>
ATROUS_INLINE V load(const std::uint16_t* from) {
    // One by one: compilers make a single widening load of it, and several instructions of a converted vector.
    const Int8 whole = {from[0], from[1], from[2], from[3], from[4], from[5], from[6], from[7]};
    return __builtin_convertvector(whole, V);
}

/// The nearest whole numbers, halves to even; values must be below 2^16. A float of 2^23 or more has no fraction bits,
/// and a whole number that is added to 2^23 is in the lowest.
ATROUS_INLINE void store(std::uint16_t* to, Float8 value) {
    const Short8 low = __builtin_convertvector(float_as_bits(value + 8388608.0f), Short8);
    __builtin_memcpy(to, &low, sizeof low);
}

ATROUS_INLINE Float8 splat8(float value) {
    return Float8{} + value;
}

ATROUS_INLINE Float8 max8(Float8 a, Float8 b) {
    return a > b ? a : b;
}

/// The largest lane, in every lane.
ATROUS_INLINE Float8 max_of_lanes(Float8 v) {
    v = max8(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3));
    v = max8(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5));
    return max8(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6));
}

/// The sum of the lanes, in every lane.
ATROUS_INLINE Float8 sum_of_lanes(Float8 v) {
    v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3);
    v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5);
    return v + __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6);
}

/// Nearest integer, halves to even, for |x| < 2^22: adding 1.5·2^23 leaves no fraction bits.
ATROUS_INLINE Float8 round_even(Float8 x) {
    const float magic = 12582912.0f;
    return (x + magic) - magic;
}

/// e^x for x ≤ 0 within 2 ulp; 0 below e^-69 ≈ 1e-30, so that no filter ever works on denormals, which are slow.
ATROUS_INLINE Float8 exp_nonpositive(Float8 x) {
    const Float8 clamped = max8(x, splat8(-80.0f));
    const Float8 n = round_even(clamped * 1.44269504088896341f);
    // Cody-Waite: ln 2 in two parts, the first exact in few bits.
    const Float8 r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
    // Minimax polynomial of e^r on [-ln2/2, ln2/2] (Cephes expf coefficients).
    Float8 p = splat8(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const Int8 exponent = (__builtin_convertvector(n, Int8) + 127) << 23;
    const Float8 value = p * bits_as_float(exponent);
    return x < splat8(-69.0f) ? Float8{} : value;
}

/// ln x for normal positive x, within 2 ulp.
ATROUS_INLINE Float8 log_positive(Float8 x) {
    const Int8 bits = float_as_bits(x);
    Int8 exponent = ((bits >> 23) & 0xff) - 126;
    Float8 m = bits_as_float((bits & 0x007fffff) | 0x3f000000);  // x = m · 2^exponent, m in [0.5, 1)
    const Int8 small = m < splat8(0.707106781186547524f);
    exponent = exponent + small;  // a true comparison is -1
    m = (small ? m + m : m) - 1.0f;
    const Float8 z = m * m;
    Float8 p = splat8(7.0376836292e-2f);  // Cephes logf coefficients
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    const Float8 e = __builtin_convertvector(exponent, Float8);
    const Float8 tail = p * m * z - e * 2.12194440e-4f - z * 0.5f;
    return (m + tail) + e * 0.693359375f;
}
