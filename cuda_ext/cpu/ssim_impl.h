// Fused L1 + SSIM with its gradient, rows of interleaved rgb. Included once per instruction set, after simd.h.
#pragma once

namespace {

constexpr int kRadius = 5, kTaps = 2 * kRadius + 1;
constexpr float kC1 = 0.01f * 0.01f, kC2 = 0.03f * 0.03f;

struct Window {
    float taps[kTaps];
    Window() {
        double total = 0, raw[kTaps];
        for (int i = 0; i < kTaps; ++i) total += raw[i] = ::exp(-0.5 * (i - kRadius) * (i - kRadius) / (1.5 * 1.5));
        for (int i = 0; i < kTaps; ++i) taps[i] = float(raw[i] / total);
    }
};

// Floats of a row with room for the window's zeros on both sides and for whole vectors.
struct RowShape {
    int width3, pitch;
    static constexpr int kPad = 16;
    explicit RowShape(int w) : width3(3 * w), pitch((3 * w + kLanes - 1) / kLanes * kLanes + 2 * kPad) {}
};

// out[i] = sum of taps along the row; `in` has kPad floats before and after its pixels.
inline void blur_along(const Window& window, const float* in, float* out, int width3) {
    for (int i = 0; i < width3; i += kLanes) {
        Vec acc = load(in + i) * window.taps[kRadius];
        for (int k = 1; k <= kRadius; ++k)
            acc = fma(load(in + i - 3 * k) + load(in + i + 3 * k), all(window.taps[kRadius + k]), acc);
        store(out + i, acc);
    }
}

// The same across rows at float i of row y; rows outside the image are zero.
inline Vec blur_across(const Window& window, const float* plane, ptrdiff_t pitch, int y, int h, int i) {
    Vec acc = {};
    const int first = y < kRadius ? -y : -kRadius, last = y + kRadius >= h ? h - 1 - y : kRadius;
    for (int k = first; k <= last; ++k)
        acc = fma(load(plane + (y + k) * pitch + i), all(window.taps[kRadius + k]), acc);
    return acc;
}

struct SsimJob {
    int h, w;
    const float *image, *target, *weights;
    float ssim_weight;
    double norm;          // 1 / (3 * sum of weights)
    float* blurred[4];    // x, y, x^2 + y^2, x y along rows
    float* derivative[3]; // of the weighted loss by the means of x, x^2, x y; then blurred along rows
};

// Per-pixel weights of a row, three times each, zero past its end.
inline void weights_of(const SsimJob& job, int y, float* row, int pitch) {
    for (int x = 0; x < job.w; ++x) {
        const float v = job.weights ? float(job.weights[ptrdiff_t(y) * job.w + x] * job.norm) : float(job.norm);
        row[3 * x] = row[3 * x + 1] = row[3 * x + 2] = v;
    }
    for (int i = 3 * job.w; i < pitch; ++i) row[i] = 0.f;
}

inline void statistics_row(const SsimJob& job, const Window& window, const RowShape& shape, int y, float* work) {
    float* rows[4];
    for (int s = 0; s < 4; ++s) {
        rows[s] = work + ptrdiff_t(s) * shape.pitch;
        std::memset(rows[s], 0, size_t(shape.pitch) * sizeof(float));
        rows[s] += RowShape::kPad;
    }
    std::memcpy(rows[0], job.image + ptrdiff_t(y) * shape.width3, size_t(shape.width3) * sizeof(float));
    std::memcpy(rows[1], job.target + ptrdiff_t(y) * shape.width3, size_t(shape.width3) * sizeof(float));
    for (int i = 0; i < shape.width3; i += kLanes) {
        const Vec a = load(rows[0] + i), b = load(rows[1] + i);
        store(rows[2] + i, fma(a, a, b * b)), store(rows[3] + i, a * b);
    }
    for (int s = 0; s < 4; ++s) blur_along(window, rows[s], job.blurred[s] + ptrdiff_t(y) * shape.pitch, shape.width3);
}

// SSIM's part of the loss on row y; leaves the derivatives, blurred along the row. work: 4 rows.
inline double similarity_row(const SsimJob& job, const Window& window, const RowShape& shape, int y, float* work,
                             bool want_gradient) {
    float* weights = work + 3 * ptrdiff_t(shape.pitch);
    weights_of(job, y, weights, shape.pitch);
    for (int s = 0; s < 3; ++s) std::memset(work + ptrdiff_t(s) * shape.pitch, 0, size_t(shape.pitch) * sizeof(float));
    Vec total = {};
    for (int i = 0; i < shape.width3; i += kLanes) {
        Vec m[4];
        for (int s = 0; s < 4; ++s) m[s] = blur_across(window, job.blurred[s], shape.pitch, y, job.h, i);
        const Vec squares = fma(m[0], m[0], m[1] * m[1]), product = m[0] * m[1];
        const Vec a1 = 2.f * product + kC1, a2 = 2.f * (m[3] - product) + kC2;
        const Vec b1 = squares + kC1, b2 = (m[2] - squares) + kC2;
        const Vec inv = 1.f / (b1 * b2), similarity = a1 * a2 * inv;
        const Vec weight = load(weights + i) * job.ssim_weight;
        total += weight * (1.f - similarity);
        if (!want_gradient) continue;
        const Vec by_product = 2.f * a1 * inv, by_square = -(similarity * b1 * inv);
        const Vec by_mean =
            2.f * (m[1] * (a2 - a1) * inv + m[0] * similarity * (b1 - b2) * inv);
        const Vec parts[3] = {by_mean, by_square, by_product};
        for (int s = 0; s < 3; ++s) store(work + ptrdiff_t(s) * shape.pitch + RowShape::kPad + i, -(weight * parts[s]));
    }
    if (want_gradient)
        for (int s = 0; s < 3; ++s)
            blur_along(window, work + ptrdiff_t(s) * shape.pitch + RowShape::kPad,
                       job.derivative[s] + ptrdiff_t(y) * shape.pitch, shape.width3);
    return sum(total);
}

// L1's part of the loss on row y, and the whole gradient. work: 3 rows.
inline double gradient_row(const SsimJob& job, const Window& window, const RowShape& shape, int y, float* work,
                           float* v_image) {
    float *weights = work, *a_row = work + shape.pitch, *b_row = a_row + shape.pitch;
    weights_of(job, y, weights, shape.pitch);
    std::memset(a_row, 0, 2 * size_t(shape.pitch) * sizeof(float));
    std::memcpy(a_row, job.image + ptrdiff_t(y) * shape.width3, size_t(shape.width3) * sizeof(float));
    std::memcpy(b_row, job.target + ptrdiff_t(y) * shape.width3, size_t(shape.width3) * sizeof(float));
    Vec total = {};
    for (int i = 0; i < shape.width3; i += kLanes) {
        const Vec a = load(a_row + i), b = load(b_row + i), difference = a - b, zero = {};
        const Vec weight = load(weights + i) * (1.f - job.ssim_weight);
        total += weight * larger(difference, -difference);
        if (!v_image) continue;
        Vec v = select(difference > zero, weight, select(difference < zero, -weight, zero));
        v += blur_across(window, job.derivative[0], shape.pitch, y, job.h, i);
        v = fma(2.f * a, blur_across(window, job.derivative[1], shape.pitch, y, job.h, i), v);
        v = fma(b, blur_across(window, job.derivative[2], shape.pitch, y, job.h, i), v);
        store(a_row + i, v);
    }
    if (v_image) std::memcpy(v_image + ptrdiff_t(y) * shape.width3, a_row, size_t(shape.width3) * sizeof(float));
    return sum(total);
}

void l1_ssim_all(int h, int w, const float* image, const float* target, const float* weights, float ssim_weight,
                 float* loss, float* v_image, int threads) {
    const Window window;
    const RowShape shape(w);
    const size_t plane = size_t(shape.pitch) * h;
    double weight_sum = weights ? 0 : double(h) * w;
    if (weights)
        for (ptrdiff_t i = 0; i < ptrdiff_t(h) * w; ++i) weight_sum += weights[i];
    const double norm = 1 / (3 * (weight_sum > 2.220446049250313e-16 ? weight_sum : 2.220446049250313e-16));
    float* planes = static_cast<float*>(
        arena((plane * 7 + size_t(shape.pitch) * 4 * threads + size_t(h) * 4 + 1) * sizeof(float)));
    float* work = planes + plane * 7;
    double* row_sums = reinterpret_cast<double*>(work + size_t(shape.pitch) * 4 * threads);
    SsimJob job{h, w, image, target, weights, ssim_weight, norm, {}, {}};
    for (int s = 0; s < 4; ++s) job.blurred[s] = planes + plane * s;
    for (int s = 0; s < 3; ++s) job.derivative[s] = planes + plane * (4 + s);
#pragma omp parallel num_threads(threads)
    {
        float* mine = work + size_t(shape.pitch) * 4 * omp_get_thread_num();
#pragma omp for schedule(static)
        for (int y = 0; y < h; ++y) statistics_row(job, window, shape, y, mine);
#pragma omp for schedule(static)
        for (int y = 0; y < h; ++y) row_sums[y] = similarity_row(job, window, shape, y, mine, v_image != nullptr);
#pragma omp for schedule(static)
        for (int y = 0; y < h; ++y) row_sums[h + y] = gradient_row(job, window, shape, y, mine, v_image);
    }
    double total = 0;
    for (int i = 0; i < 2 * h; ++i) total += row_sums[i];
    *loss = float(total);
}

}  // namespace
