// Projection of kLanes splats at a time, forward and backward. Included once per instruction set, after simd.h.
#pragma once

namespace {

using namespace gsth;

constexpr int kMaxBases = 16;

// Memory without std containers: their templates must not be compiled for one instruction set and linked for all.
struct Scratch {
    float* memory;
    explicit Scratch(size_t floats) : memory(static_cast<float*>(std::malloc(floats * sizeof(float) + 1))) {
        if (!memory) throw std::bad_alloc();
    }
    ~Scratch() { std::free(memory); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
};

// Reads one component of kLanes splats; lanes past the end repeat the last splat.
inline Vec gather(const float* p, int stride, int valid) {
    alignas(64) float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = p[ptrdiff_t(i < valid ? i : valid - 1) * stride];
    return load(lanes);
}

inline void scatter(float* p, int stride, int valid, Vec x) {
    alignas(64) float lanes[kLanes];
    store(lanes, x);
    for (int i = 0; i < valid; ++i) p[ptrdiff_t(i) * stride] = lanes[i];
}

struct Loaded {
    SplatIn<Vec> in;
    Vec opacity;
    int bad;  // index of an array with a value that is not finite, or -1
};

inline Loaded load_splats(const GsthSplats& s, int64_t first, int valid) {
    Loaded l;
    // x * 0 is 0 for every finite x and NaN for the rest.
    Vec check[4] = {};
    for (int j = 0; j < 3; ++j) {
        l.in.mean[j] = gather(s.means + first * 3 + j, 3, valid);
        l.in.scale[j] = gather(s.scales + first * 3 + j, 3, valid);
        check[0] += l.in.mean[j] * 0.f, check[2] += l.in.scale[j] * 0.f;
    }
    for (int j = 0; j < 4; ++j) {
        l.in.quat[j] = gather(s.quats + first * 4 + j, 4, valid);
        check[1] += l.in.quat[j] * 0.f;
    }
    l.opacity = gather(s.opacities + first, 1, valid);
    check[3] += l.opacity * 0.f;
    alignas(64) float o[kLanes];
    store(o, l.opacity);
    // An opacity of 0 or below gives a very low logarithm, never NaN; the splat is then not drawn.
    for (int i = 0; i < kLanes; ++i) o[i] = o[i] > 1e-30f ? log2f(o[i]) : -100.f;
    l.in.log2_opacity = load(o);
    l.bad = -1;
    for (int k = 3; k >= 0; --k)
        if (sum(check[k]) != 0.f) l.bad = k;
    return l;
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

inline void project_lanes(const GsthSplats& s, const gsth::Camera& cam, const Grid& grid, const GsthLists& lists,
                          float* means2d, float* radii, int64_t first, int valid, int& bad) {
    const Loaded l = load_splats(s, first, valid);
    Steps<Vec> steps;
    const SplatOut<Vec> o = project(cam, l.in, steps);
    Vec basis[kMaxBases];
    if (s.bases > 1) {
        const Direction d = direction_of(cam, steps.p);
        sh_basis(s.bases, d.n[0], d.n[1], d.n[2], basis);
    } else {
        sh_basis(1, o.x, o.x, o.x, basis);
        basis[0] = all(0.28209479177387814f);
    }
    Vec color[3] = {}, check = {};
    for (int k = 0; k < s.bases; ++k)
        for (int j = 0; j < 3; ++j) {
            const Vec c = gather(s.sh + (first * s.bases + k) * 3 + j, 3 * s.bases, valid);
            color[j] += basis[k] * c, check += c * 0.f;
        }
    bad = l.bad < 0 && sum(check) != 0.f ? 4 : l.bad;
    const Vec zero = {};
    const Vec reach = larger(l.in.log2_opacity - kLog2AlphaMin, zero) * 1.0001f + 1e-3f;
    const Vec a = (0.5f * kLog2E) * o.a, inv_yy = 1.f / o.cov_yy;
    const Vec fields[GSTH_PACK_FLOATS] = {
        o.x, o.y, a, kLog2E * o.b, (0.5f * kLog2E) * o.c, l.in.log2_opacity, larger(color[0] + 0.5f, zero),
        larger(color[1] + 0.5f, zero), larger(color[2] + 0.5f, zero), o.z, select(o.drawn > zero, o.extent_x, zero), o.extent_y,
        o.cov_xy / o.cov_xx * o.extent_x, o.cov_xy * inv_yy, o.det * inv_yy * inv_yy, reach / a};
    for (int f = 0; f < GSTH_PACK_FLOATS; ++f)
        scatter(lists.packs + first * GSTH_PACK_FLOATS + f, GSTH_PACK_FLOATS, valid, fields[f]);
    alignas(64) float drawn[kLanes];
    store(drawn, o.drawn);
    for (int i = 0; i < valid; ++i) {
        const float* pack = lists.packs + (first + i) * GSTH_PACK_FLOATS;
        const bool on = drawn[i] != 0.f;
        lists.slots[first + i] = on ? tile_range(pack, grid).count() : 0;
        radii[first + i] = !on ? 0.f : pack[kExtentX] > pack[kExtentY] ? pack[kExtentX] : pack[kExtentY];
        means2d[2 * (first + i)] = on ? pack[kX] : 0.f;
        means2d[2 * (first + i) + 1] = on ? pack[kY] : 0.f;
    }
}

int project_all(const GsthSplats& s, const GsthCamera& camera, const GsthLists& lists, const Grid& grid, float* means2d,
                float* radii, int threads) {
    const gsth::Camera cam = make_camera(camera.viewmat, camera.K, camera.width, camera.height);
    const int64_t groups = (s.n + kLanes - 1) / kLanes;
    int worst = 5;  // lowest index found; 5: none
#pragma omp parallel for num_threads(threads) schedule(static) reduction(min : worst)
    for (int64_t group = 0; group < groups; ++group) {
        const int64_t first = group * kLanes, left = s.n - first;
        int bad;
        project_lanes(s, cam, grid, lists, means2d, radii, first, left < kLanes ? int(left) : kLanes, bad);
        if (bad >= 0 && bad < worst) worst = bad;
    }
    return worst == 5 ? -1 : worst;
}

// Sums the gradient slots of kLanes splats: [10] vectors.
inline void sum_slots(const GsthLists& lists, const float* slots, int64_t first, int valid, Vec total[10]) {
    alignas(64) float lanes[10][kLanes] = {};
    for (int i = 0; i < valid; ++i) {
        float sums[10] = {};
        for (int32_t s = lists.slots[first + i]; s < lists.slots[first + i + 1]; ++s)
            for (int f = 0; f < 10; ++f) sums[f] += slots[ptrdiff_t(s) * GSTH_SLOT_FLOATS + f];
        for (int f = 0; f < 10; ++f) lanes[f][i] = sums[f];
    }
    for (int f = 0; f < 10; ++f) total[f] = load(lanes[f]);
}

// Colour part: sh gradients out, adds what the viewing direction passes on to the centre and the rotation.
inline void color_backward(const GsthSplats& s, const gsth::Camera& cam, const GsthSplatGrads& out, int64_t first,
                           int valid, const Steps<Vec>& steps, const Vec v_color[3], SplatGrad<Vec>& g) {
    Vec basis[kMaxBases], v_basis[kMaxBases];
    Direction d;
    if (s.bases > 1) d = direction_of(cam, steps.p), sh_basis(s.bases, d.n[0], d.n[1], d.n[2], basis);
    else basis[0] = all(0.28209479177387814f);
    for (int k = 0; k < s.bases; ++k) {
        v_basis[k] = Vec{};
        for (int j = 0; j < 3; ++j) {
            const ptrdiff_t at = (first * s.bases + k) * 3 + j;
            if (k > 0) v_basis[k] += v_color[j] * gather(s.sh + at, 3 * s.bases, valid);
            scatter(out.sh + at, 3 * s.bases, valid, basis[k] * v_color[j]);
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
                                   const float* v_means2d, const float* slots, const GsthSplatGrads& out, int64_t first,
                                   int valid, Vec view[12]) {
    const Loaded l = load_splats(s, first, valid);
    Steps<Vec> steps;
    project_steps(cam, l.in, steps);
    Vec sums[10];
    sum_slots(lists, slots, first, valid, sums);
    const float* packs = lists.packs + first * GSTH_PACK_FLOATS;
    const auto pack = [&](int field) { return gather(packs + field, GSTH_PACK_FLOATS, valid); };
    alignas(64) float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = i < valid ? packs[i * GSTH_PACK_FLOATS + kExtentX] : 0.f;
    const Vec zero = {};
    const auto drawn = load(lanes) > zero;  // the others may hold infinities: their gradients are 0
    SplatGrad<Vec> g = {};
    g.x = sums[kVx], g.y = sums[kVy], g.z = sums[kVz], g.a = sums[kVa], g.b = sums[kVb], g.c = sums[kVc];
    if (v_means2d) {
        g.x += gather(v_means2d + 2 * first, 2, valid), g.y += gather(v_means2d + 2 * first + 1, 2, valid);
    }
    const Vec v_color[3] = {select(pack(kRed) > zero, sums[kVRed], zero), select(pack(kGreen) > zero, sums[kVGreen], zero),
                            select(pack(kBlue) > zero, sums[kVBlue], zero)};
    color_backward(s, cam, out, first, valid, steps, v_color, g);
    project_backward(cam, l.in, steps, pack(kA) * (2.f * kLn2), pack(kB) * kLn2, pack(kC) * (2.f * kLn2), g);
    for (int j = 0; j < 3; ++j) {
        scatter(out.means + first * 3 + j, 3, valid, select(drawn, g.mean[j], zero));
        scatter(out.scales + first * 3 + j, 3, valid, select(drawn, g.scale[j], zero));
    }
    for (int j = 0; j < 4; ++j) scatter(out.quats + first * 4 + j, 4, valid, select(drawn, g.quat[j], zero));
    scatter(out.opacities + first, 1, valid, select(drawn, sums[kVLogOpacity] / l.opacity, zero));
    scatter(out.grad_px + first, 1, valid, select(drawn, root(g.x * g.x + g.y * g.y), zero));
    for (int j = 0; j < 9; ++j) view[j] += select(drawn, g.R[j], zero);
    for (int j = 0; j < 3; ++j) view[9 + j] += select(drawn, g.p[j], zero);
}

void project_backward_all(const GsthSplats& s, const GsthCamera& camera, const GsthLists& lists, const float* v_means2d,
                          const float* slots, const GsthSplatGrads& out, int threads) {
    const gsth::Camera cam = make_camera(camera.viewmat, camera.K, camera.width, camera.height);
    // The camera's sums are made per run of 1024 splats, then in order, so that threads do not change them.
    constexpr int64_t kRun = 1024;
    const int64_t runs = (s.n + kRun - 1) / kRun;
    const Scratch scratch(size_t(runs) * 12);
    float* partial = scratch.memory;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t run = 0; run < runs; ++run) {
        Vec view[12] = {};
        const int64_t end = (run + 1) * kRun < s.n ? (run + 1) * kRun : s.n;
        for (int64_t first = run * kRun; first < end; first += kLanes) {
            const int64_t left = end - first;
            project_backward_lanes(s, cam, lists, v_means2d, slots, out, first, left < kLanes ? int(left) : kLanes,
                                   view);
        }
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
