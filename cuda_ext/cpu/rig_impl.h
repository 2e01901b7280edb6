// Splats in triangle frames to the world and back (gsth/render/torch_ref.py: triangle_frames, rig), kLanes splats at a
// time. Each lane makes the frame of its own triangle: that is cheaper than to group the splats. Included once per
// instruction set, after simd.h and project_impl.h.
#pragma once

namespace {

struct V3 {
    Vec x, y, z;
};

inline V3 operator+(V3 a, V3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
inline V3 operator-(V3 a, V3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
inline V3 operator*(Vec s, V3 a) { return {s * a.x, s * a.y, s * a.z}; }
inline Vec dot(V3 a, V3 b) { return fma(a.x, b.x, fma(a.y, b.y, a.z * b.z)); }
inline V3 cross(V3 a, V3 b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
inline Vec length(V3 a) { return root(dot(a, a)); }

struct Quat {
    Vec w, x, y, z;
};

inline Quat operator*(Quat a, Quat b) {
    return {a.w * b.w - a.x * b.x - a.y * b.y - a.z * b.z, a.w * b.x + a.x * b.w + a.y * b.z - a.z * b.y,
            a.w * b.y - a.x * b.z + a.y * b.w + a.z * b.x, a.w * b.z + a.x * b.y - a.y * b.x + a.z * b.w};
}

inline V3 read3(const Run& run, const float* p) { return {run.read(p, 3, 0), run.read(p, 3, 1), run.read(p, 3, 2)}; }
inline void write3(const Run& run, float* p, V3 v) {
    run.write(p, 3, 0, v.x), run.write(p, 3, 1, v.y), run.write(p, 3, 2, v.z);
}
inline Quat read4(const Run& run, const float* p) {
    return {run.read(p, 4, 0), run.read(p, 4, 1), run.read(p, 4, 2), run.read(p, 4, 3)};
}
inline void write4(const Run& run, float* p, Quat q) {
    run.write(p, 4, 0, q.w), run.write(p, 4, 1, q.x), run.write(p, 4, 2, q.y), run.write(p, 4, 3, q.z);
}

// Columns a, b, c of a rotation to a unit quaternion with w >= 0 (Shepperd 1978): of four times the squares of w, x, y
// and z the largest divides the others' products.
inline Quat quat_of(V3 a, V3 b, V3 c) {
    const Vec w = 1.f + a.x + b.y + c.z, i = 1.f + a.x - b.y - c.z, j = 1.f - a.x + b.y - c.z, k = 1.f - a.x - b.y + c.z;
    const Vec x = b.z - c.y, y = c.x - a.z, z = a.y - b.x, d = b.x + a.y, e = c.x + a.z, f = c.y + b.z;
    Quat q{w, x, y, z};
    Vec best = w;
    const auto prefer = [&](Vec size, Quat other) {
        const auto more = size > best;
        q = {select(more, other.w, q.w), select(more, other.x, q.x), select(more, other.y, q.y),
             select(more, other.z, q.z)};
        best = larger(size, best);
    };
    prefer(i, {x, i, d, e}), prefer(j, {y, d, j, f}), prefer(k, {z, e, f, k});
    const Vec norm = root(q.w * q.w + q.x * q.x + q.y * q.y + q.z * q.z);
    const Vec inv = 1.f / larger(norm, all(1e-12f)), s = select(q.w < Vec{}, -inv, inv);
    return {s * q.w, s * q.x, s * q.y, s * q.z};
}

struct Frame {
    V3 origin, a0, a1, a2, e1;  // centroid; first edge, normal and their cross product; second edge
    Vec edge, height, size;
    Quat q;

    V3 turn(V3 v) const { return v.x * a0 + v.y * a1 + v.z * a2; }
    V3 turn_back(V3 v) const { return {dot(v, a0), dot(v, a1), dot(v, a2)}; }
};

// The corners of each lane's triangle, as first floats in verts.
struct Corners {
    Ints at[3];
};

// False where an index is out of range; the corners are then the first vertex.
inline bool find_corners(const GsthRigged& r, const Run& run, Corners& corners) {
    bool good = true;
    for (int i = 0; i < kLanes; ++i) {
        const int64_t face = r.face_ids[run.first + run.lane[i]];
        const bool exists = face >= 0 && face < r.faces_count;
        for (int c = 0; c < 3; ++c) {
            const int64_t vert = exists ? r.faces[3 * face + c] : -1;
            const bool inside = vert >= 0 && vert < r.verts_count;
            good &= inside;
            corners.at[c][i] = inside ? int32_t(3 * vert) : 0;
        }
    }
    return good;
}

inline Frame frame_of(const GsthRigged& r, const Corners& corners) {
    V3 p[3];
    for (int c = 0; c < 3; ++c)
        p[c] = {load_at(r.verts, corners.at[c]), load_at(r.verts + 1, corners.at[c]),
                load_at(r.verts + 2, corners.at[c])};
    Frame f;
    const V3 e0 = p[1] - p[0];
    f.e1 = p[2] - p[0];
    f.origin = all(1.f / 3.f) * (p[0] + p[1] + p[2]);
    f.edge = length(e0), f.a0 = (1.f / larger(f.edge, all(1e-12f))) * e0;
    const V3 normal = cross(e0, f.e1);
    f.a1 = (1.f / larger(length(normal), all(1e-12f))) * normal, f.a2 = cross(f.a0, f.a1);
    const Vec across = dot(f.e1, f.a2);
    f.height = larger(across, -across), f.size = 0.5f * (dot(e0, f.a0) + f.height);
    f.q = quat_of(f.a0, f.a1, f.a2);
    return f;
}

// Held where float32 is about to end.
inline Vec exp_of(Vec x) { return exp2_of(smaller(larger(x * kLog2E, all(-125.f)), all(125.f))); }
inline Vec sigmoid(Vec x) { return 1.f / (1.f + exp_of(-x)); }

bool rig_all(const GsthRigged& r, float* means, float* quats, float* scales, float* opacities, int threads) {
    bool good = true;
    const int64_t groups = (r.n + kLanes - 1) / kLanes;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(&& : good)
    for (int64_t group = 0; group < groups; ++group) {
        const Run run(group * kLanes, r.n);
        Corners corners;
        if (!find_corners(r, run, corners)) {
            good = false;
            continue;
        }
        const Frame f = frame_of(r, corners);
        write3(run, means, f.origin + f.size * f.turn(read3(run, r.means_tri)));
        write4(run, quats, f.q * read4(run, r.quats_tri));
        for (int j = 0; j < 3; ++j) run.write(scales, 3, j, f.size * exp_of(run.read(r.log_scales, 3, j)));
        run.write(opacities, 1, 0, sigmoid(run.read(r.logit_opacities, 1, 0)));
    }
    return good;
}

// What a splat passes on to its frame.
struct FrameGrad {
    V3 origin, spin;  // spin: by a small rotation of the frame about the world's axes
    Vec size;
};

inline FrameGrad splat_backward(const GsthRigged& r, const GsthRigGrads& g, const Frame& f, const Run& run) {
    const V3 v_mean = read3(run, g.v_means), offset = f.turn(read3(run, r.means_tri));
    FrameGrad out{v_mean, f.size * cross(offset, v_mean), dot(v_mean, offset)};
    write3(run, g.means_tri, f.size * f.turn_back(v_mean));
    const Quat v = read4(run, g.v_quats), q = f.q * read4(run, r.quats_tri);
    write4(run, g.quats_tri, Quat{f.q.w, -f.q.x, -f.q.y, -f.q.z} * v);
    out.spin = out.spin + all(0.5f) * V3{-v.w * q.x + v.x * q.w - v.y * q.z + v.z * q.y,
                                         -v.w * q.y + v.x * q.z + v.y * q.w - v.z * q.x,
                                         -v.w * q.z - v.x * q.y + v.y * q.x + v.z * q.w};
    for (int j = 0; j < 3; ++j) {
        const Vec along = run.read(g.v_scales, 3, j) * exp_of(run.read(r.log_scales, 3, j));
        out.size += along;
        run.write(g.log_scales, 3, j, along * f.size);
    }
    const Vec opacity = sigmoid(run.read(r.logit_opacities, 1, 0));
    run.write(g.logit_opacities, 1, 0, run.read(g.v_opacities, 1, 0) * opacity * (1.f - opacity));
    return out;
}

// A frame's gradient to the triangle's corners. An edge moves the frame by turning a0 towards a1 and a2; the other edge
// by turning the normal about a0. Triangles without area pass nothing on.
inline void frame_backward(const Frame& f, const FrameGrad& g, V3 corners[3]) {
    const Vec zero = {}, tiny = all(1e-12f);
    const Vec inv_edge = 1.f / larger(f.edge, tiny), inv_height = 1.f / larger(f.height, tiny);
    const Vec along = dot(f.e1, f.a0) * inv_edge;
    const Vec s0 = dot(g.spin, f.a0) * inv_height, s1 = dot(g.spin, f.a1) * inv_edge,
              s2 = dot(g.spin, f.a2) * inv_edge;
    const Vec v_size = 0.5f * g.size;
    V3 v_e0 = v_size * (f.a0 + along * f.a2) + (s2 - s0 * along) * f.a1 - s1 * f.a2;
    V3 v_e1 = s0 * f.a1 - v_size * f.a2;
    const auto solid = smaller(f.edge, f.height) > tiny;
    v_e0 = {select(solid, v_e0.x, zero), select(solid, v_e0.y, zero), select(solid, v_e0.z, zero)};
    v_e1 = {select(solid, v_e1.x, zero), select(solid, v_e1.y, zero), select(solid, v_e1.z, zero)};
    const V3 share = all(1.f / 3.f) * g.origin;
    corners[0] = share - v_e0 - v_e1, corners[1] = share + v_e0, corners[2] = share + v_e1;
}

// Adds the corners' gradients of the splats of a run, in their order, to those of the vertices.
inline void add_corners(const Run& run, const Corners& corners, const V3 v[3], float* verts) {
    alignas(64) float values[9][kLanes];
    for (int c = 0; c < 3; ++c) store(values[3 * c], v[c].x), store(values[3 * c + 1], v[c].y), store(values[3 * c + 2], v[c].z);
    for (int i = 0; i <= run.lane[kLanes - 1]; ++i)
        for (int c = 0; c < 3; ++c)
            for (int j = 0; j < 3; ++j) verts[corners.at[c][i] + j] += values[3 * c + j][i];
}

void rig_backward_all(const GsthRigged& r, const GsthRigGrads& g, int threads) {
    // The splats are cut into as many parts for any number of threads, each with its own sums over vertices, which are
    // then added in order: so threads do not change the sums.
    constexpr int kParts = 4;
    const int64_t floats = 3 * r.verts_count, groups = (r.n + kLanes - 1) / kLanes;
    float* sums = static_cast<float*>(arena(size_t(floats) * kParts * sizeof(float)));
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static, 1)
        for (int part = 0; part < kParts; ++part) {
            float* mine = sums + floats * part;
            std::memset(mine, 0, size_t(floats) * sizeof(float));
            for (int64_t group = groups * part / kParts; group < groups * (part + 1) / kParts; ++group) {
                const Run run(group * kLanes, r.n);
                Corners corners;
                if (!find_corners(r, run, corners)) continue;
                const Frame f = frame_of(r, corners);
                V3 v[3];
                frame_backward(f, splat_backward(r, g, f, run), v);
                add_corners(run, corners, v, mine);
            }
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < floats; ++i) {
            float total = 0;
            for (int part = 0; part < kParts; ++part) total += sums[floats * part + i];
            g.verts[i] = total;
        }
    }
}

}  // namespace
