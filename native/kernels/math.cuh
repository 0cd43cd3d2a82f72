// Arithmetic whose bits are the CPU's.
#pragma once

namespace atrous {

/// e^x for x ≤ 0 within 2 ulp; 0 below e^-69. The bits of `exp_nonpositive` in native/lanes.inl.
__device__ inline float exp_nonpositive(float x) {
    constexpr float magic = 12582912.0f;  // 1.5 · 2^23: adding it rounds to whole numbers, ties to even
    const float clamped = fmaxf(x, -80.0f);
    const float n = (clamped * 1.44269504088896341f + magic) - magic;
    const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const float value = p * __int_as_float((static_cast<int>(n) + 127) << 23);
    return x < -69.0f ? 0.0f : value;
}

}  // namespace atrous
