// Projection of kLanes splats at a time, forward and backward. Included once per instruction set, after simd.h.
#pragma once

namespace {

using namespace gsth;

constexpr int kMaxBases = 16;

// Up to kLanes splats in a row; lanes past the end repeat the last one and are not written.
struct Run {
    int64_t first;
    Ints lane;
    Mask on;

    Run(int64_t begin, int64_t end) : first(begin) {
        const int valid = end - begin < kLanes ? int(end - begin) : kLanes;
        for (int i = 0; i < kLanes; ++i) lane[i] = i < valid ? i : valid - 1;
        on = first_lanes(valid);
    }
    // Component j of a row-major array [n width].
    Vec read(const float* p, int width, int j) const { return load_at(p + first * width + j, lane * width); }
    void write(float* p, int width, int j, Vec x) const { store_at(p + first * width + j, lane * width, on, x); }
};

inline SplatIn<Vec> load_splats(const GsthSplats& s, const Run& run) {
    SplatIn<Vec> in = {};
    for (int j = 0; j < 3; ++j) in.mean[j] = run.read(s.means, 3, j), in.scale[j] = run.read(s.scales, 3, j);
    for (int j = 0; j < 4; ++j) in.quat[j] = run.read(s.quats, 4, j);
    return in;
}

// Index of the first array that holds a value that is not finite (0 means .. 3 opacities), or -1.
inline int not_finite(const SplatIn<Vec>& in, Vec opacity) {
    // x * 0 is 0 for every finite x and NaN for the rest.
    Vec check[4] = {};
    for (int j = 0; j < 3; ++j) check[0] += in.mean[j] * 0.f, check[2] += in.scale[j] * 0.f;
    for (int j = 0; j < 4; ++j) check[1] += in.quat[j] * 0.f;
    check[3] = opacity * 0.f;
    if (sum(check[0] + check[1] + check[2] + check[3]) == 0.f) return -1;
    for (int k = 0; k < 3; ++k)
        if (sum(check[k]) != 0.f) return k;
    return 3;
}

struct Direction {
    Vec n[3], inv_length;
};

// From the camera to the splat, world axes: R^T p, normalised.
inline Direction direction_of(const gsth::Camera& cam, const Vec p[3]) {
    Direction d;
    Vec square = {};
    for (int j = 0; j < 3; ++j) {
        d.n[j] = cam.R[j] * p[0] + cam.R[3 + j] * p[1] + cam.R[6 + j] * p[2];
        square += d.n[j] * d.n[j];
    }
    d.inv_length = 1.f / larger(root(square), all(1e-12f));
    for (int j = 0; j < 3; ++j) d.n[j] *= d.inv_length;
    return d;
}

// Tiles whose pixel centres the box may reach; leaves the splat's record for sorting and binning.
inline void write_box(const gsth::Camera& cam, const Grid& grid, const GsthLists& lists, const Run& run,
                      const SplatOut<Vec>& o) {
    // A box that is a little too large costs a test in the tile; one too small would lose pixels to rounding.
    constexpr float slack = 0.01f;
    const Vec zero = {};
    const auto low = [&](Vec v, float limit) { return nearest(smaller(larger(v - slack, zero), all(limit))); };
    const auto high = [&](Vec v, float limit) {
        return nearest(smaller(larger(v + (slack - 1.f), all(-1.f)), all(limit - 1.f)));
    };
    const Vec x0 = low(o.x - o.extent_x, cam.width), x1 = high(o.x + o.extent_x, cam.width);
    const Vec y0 = low(o.y - o.extent_y, cam.height), y1 = high(o.y + o.extent_y, cam.height);
    Vec some = select(x0 <= x1, o.drawn, zero);
    some = select(y0 <= y1, some, zero);
    const auto tiles = [&](Vec from, Vec to, int size) {
        const float inv = 1.f / float(size);  // a power of two
        const Ints first = __builtin_convertvector(from * inv, Ints), last = __builtin_convertvector(to * inv, Ints);
        return some > zero ? (first | last << 16) : Ints{} + 1;
    };
    float* boxes = reinterpret_cast<float*>(lists.boxes);
    run.write(boxes, 4, 0, reinterpret_cast<Vec>(tiles(x0, x1, grid.tile_w)));
    run.write(boxes, 4, 1, reinterpret_cast<Vec>(tiles(y0, y1, grid.tile_h)));
    run.write(boxes, 4, 2, o.z);
}

inline void project_lanes(const GsthSplats& s, const gsth::Camera& cam, const Grid& grid, const GsthLists& lists,
                          float* means2d, float* radii, const Run& run, int& bad) {
    SplatIn<Vec> in = load_splats(s, run);
    const Vec opacity = run.read(s.opacities, 1, 0), zero = {};
    // An opacity of 0 or below gives a very low logarithm, never NaN; the splat is then not drawn.
    in.log2_opacity = select(opacity > zero + 1e-30f, log2_of(opacity), zero - 100.f);
    Steps<Vec> steps;
    const SplatOut<Vec> o = project(cam, in, steps);
    Vec basis[kMaxBases];
    if (s.bases > 1) {
        const Direction d = direction_of(cam, steps.p);
        sh_basis(s.bases, d.n[0], d.n[1], d.n[2], basis);
    } else {
        sh_basis(1, zero, zero, zero, basis);
    }
    Vec color[3] = {}, check = {};
    for (int k = 0; k < s.bases; ++k)
        for (int j = 0; j < 3; ++j) {
            const Vec c = run.read(s.sh, 3 * s.bases, 3 * k + j);
            color[j] += basis[k] * c, check += c * 0.f;
        }
    bad = not_finite(in, opacity);
    if (bad < 0 && sum(check) != 0.f) bad = 4;
    const Vec reach = larger(o.log2_opacity - kLog2AlphaMin, zero) * 1.0001f + 1e-3f;
    const Vec a = (0.5f * kLog2E) * o.a, inv_yy = 1.f / o.cov_yy;
    const Vec fields[GSTH_PACK_FLOATS] = {
        o.x, o.y, a, kLog2E * o.b, (0.5f * kLog2E) * o.c, o.log2_opacity, larger(color[0] + 0.5f, zero),
        larger(color[1] + 0.5f, zero), larger(color[2] + 0.5f, zero), o.z, o.drawn, zero,
        o.cov_xy / o.cov_xx * o.extent_x, o.cov_xy * inv_yy, o.det * inv_yy * inv_yy, reach / a};
    for (int f = 0; f < GSTH_PACK_FLOATS; ++f) run.write(lists.packs, GSTH_PACK_FLOATS, f, fields[f]);
    write_box(cam, grid, lists, run, o);
    run.write(radii, 1, 0, select(o.drawn > zero, larger(o.extent_x, o.extent_y), zero));
    run.write(means2d, 2, 0, select(o.drawn > zero, o.x, zero));
    run.write(means2d, 2, 1, select(o.drawn > zero, o.y, zero));
}

inline gsth::Camera camera_of(const GsthCamera& c) {
    return make_camera(c.viewmat, c.K, c.width, c.height, c.antialiased != 0);
}

int project_all(const GsthSplats& s, const GsthCamera& camera, const GsthLists& lists, const Grid& grid, float* means2d,
                float* radii, int threads) {
    const gsth::Camera cam = camera_of(camera);
    const int64_t groups = (s.n + kLanes - 1) / kLanes;
    int worst = 5;  // lowest index found; 5: none
#pragma omp parallel for num_threads(threads) schedule(static) reduction(min : worst)
    for (int64_t group = 0; group < groups; ++group) {
        int bad;
        project_lanes(s, cam, grid, lists, means2d, radii, Run(group * kLanes, s.n), bad);
        if (bad >= 0 && bad < worst) worst = bad;
    }
    return worst == 5 ? -1 : worst;
}

// Sums the gradient slots of kLanes splats: [10] vectors.
inline void sum_slots(const GsthLists& lists, const float* slots, const Run& run, Vec total[10]) {
    alignas(64) float lanes[10][kLanes] = {};
    for (int i = 0; i <= run.lane[kLanes - 1]; ++i) {
        float sums[10] = {};
        for (int32_t s = lists.slots[run.first + i]; s < lists.slots[run.first + i + 1]; ++s)
            for (int f = 0; f < 10; ++f) sums[f] += slots[ptrdiff_t(s) * GSTH_SLOT_FLOATS + f];
        for (int f = 0; f < 10; ++f) lanes[f][i] = sums[f];
    }
    for (int f = 0; f < 10; ++f) total[f] = load(lanes[f]);
}

// Colour part: sh gradients out, adds what the viewing direction passes on to the centre and the rotation.
inline void color_backward(const GsthSplats& s, const gsth::Camera& cam, const GsthSplatGrads& out, const Run& run,
                           const Steps<Vec>& steps, const Vec v_color[3], SplatGrad<Vec>& g) {
    Vec basis[kMaxBases], v_basis[kMaxBases];
    Direction d;
    if (s.bases > 1) d = direction_of(cam, steps.p), sh_basis(s.bases, d.n[0], d.n[1], d.n[2], basis);
    else basis[0] = all(0.28209479177387814f);
    for (int k = 0; k < s.bases; ++k) {
        v_basis[k] = Vec{};
        for (int j = 0; j < 3; ++j) {
            if (k > 0) v_basis[k] += v_color[j] * run.read(s.sh, 3 * s.bases, 3 * k + j);
            run.write(out.sh, 3 * s.bases, 3 * k + j, basis[k] * v_color[j]);
        }
    }
    if (s.bases == 1) return;
    Vec v[3];
    sh_basis_backward(s.bases, d.n[0], d.n[1], d.n[2], v_basis, v);
    const Vec along = d.n[0] * v[0] + d.n[1] * v[1] + d.n[2] * v[2];
    for (int j = 0; j < 3; ++j) v[j] = (v[j] - d.n[j] * along) * d.inv_length;
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) {
            g.p[i] += cam.R[3 * i + j] * v[j];
            g.R[3 * i + j] += steps.p[i] * v[j];
        }
}

// view [12]: sums of the gradients of R and t over these splats, added.
inline void project_backward_lanes(const GsthSplats& s, const gsth::Camera& cam, const GsthLists& lists,
                                   const float* v_means2d, const float* slots, const GsthSplatGrads& out,
                                   const Run& run, Vec view[12]) {
    const SplatIn<Vec> in = load_splats(s, run);
    Steps<Vec> steps;
    project_steps(cam, in, steps);
    Vec sums[10];
    sum_slots(lists, slots, run, sums);
    const auto pack = [&](int field) { return run.read(lists.packs, GSTH_PACK_FLOATS, field); };
    const Vec zero = {};
    const auto drawn = keep(run.on, pack(kDrawn)) > zero;  // the others may hold infinities: their gradients are 0
    SplatGrad<Vec> g = {};
    g.x = sums[kVx], g.y = sums[kVy], g.z = sums[kVz], g.a = sums[kVa], g.b = sums[kVb], g.c = sums[kVc];
    g.log_opacity = sums[kVLogOpacity];
    if (v_means2d) g.x += run.read(v_means2d, 2, 0), g.y += run.read(v_means2d, 2, 1);
    const Vec v_color[3] = {select(pack(kRed) > zero, sums[kVRed], zero), select(pack(kGreen) > zero, sums[kVGreen], zero),
                            select(pack(kBlue) > zero, sums[kVBlue], zero)};
    color_backward(s, cam, out, run, steps, v_color, g);
    project_backward(cam, in, steps, pack(kA) * (2.f * kLn2), pack(kB) * kLn2, pack(kC) * (2.f * kLn2), g);
    const auto give = [&](float* p, int width, int j, Vec x) { run.write(p, width, j, select(drawn, x, zero)); };
    for (int j = 0; j < 3; ++j) give(out.means, 3, j, g.mean[j]), give(out.scales, 3, j, g.scale[j]);
    for (int j = 0; j < 4; ++j) give(out.quats, 4, j, g.quat[j]);
    give(out.opacities, 1, 0, g.log_opacity / run.read(s.opacities, 1, 0));
    give(out.grad_px, 1, 0, root(g.x * g.x + g.y * g.y));
    for (int j = 0; j < 9; ++j) view[j] += select(drawn, g.R[j], zero);
    for (int j = 0; j < 3; ++j) view[9 + j] += select(drawn, g.p[j], zero);
}

void project_backward_all(const GsthSplats& s, const GsthCamera& camera, const GsthLists& lists, const float* v_means2d,
                          const float* slots, const GsthSplatGrads& out, int threads) {
    const gsth::Camera cam = camera_of(camera);
    // The camera's sums are made per run of 1024 splats, then in order, so that threads do not change them.
    constexpr int64_t kRun = 1024;
    const int64_t runs = (s.n + kRun - 1) / kRun;
    float* partial = static_cast<float*>(arena(size_t(runs) * 12 * sizeof(float)));
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t run = 0; run < runs; ++run) {
        Vec view[12] = {};
        const int64_t end = (run + 1) * kRun < s.n ? (run + 1) * kRun : s.n;
        for (int64_t first = run * kRun; first < end; first += kLanes)
            project_backward_lanes(s, cam, lists, v_means2d, slots, out, Run(first, end), view);
        for (int j = 0; j < 12; ++j) partial[run * 12 + j] = sum(view[j]);
    }
    double total[12] = {};
    for (int64_t run = 0; run < runs; ++run)
        for (int j = 0; j < 12; ++j) total[j] += partial[run * 12 + j];
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) out.viewmat[4 * i + j] = float(total[3 * i + j]);
        out.viewmat[4 * i + 3] = float(total[9 + i]);
    }
    for (int j = 0; j < 4; ++j) out.viewmat[12 + j] = 0.f;
}

}  // namespace
