// The player's inner loops, WebAssembly with SIMD. src/kernels.ts holds the same in plain TypeScript and says what each
// does. Addresses are bytes in the shared memory; all arrays are 16-byte aligned. No allocation, no state.

export function addShapes(p: usize, shapes: i32): void {
  const verts: usize = load<u32>(p);
  let vert: usize = load<u32>(p, 4);
  let delta: usize = load<u32>(p, 8);
  const counts: usize = load<u32>(p, 12);
  const amounts: usize = load<u32>(p, 16);
  for (let e: usize = 0; e < <usize>shapes; e++) {
    const count: usize = load<u32>(counts + (e << 2));
    const amount = load<f32>(amounts + (e << 2));
    const end = vert + (count << 2);
    if (amount == 0) {
      vert = end;
      delta += count << 3;
      continue;
    }
    const w = f32x4.splat(amount);
    for (; vert < end; vert += 4, delta += 8) {
      const at = verts + (<usize>load<u32>(vert) << 4);
      const d = f32x4.convert_i32x4_s(v128.load_ext<i16>(delta));
      v128.store(at, f32x4.add(v128.load(at), f32x4.mul(d, w)));
    }
  }
}

export function skin(src: usize, dst: usize, weights: usize, affines: usize, count: i32, joints: i32): void {
  for (let i = 0; i < count; i++) {
    let c0 = f32x4.splat(0);
    let c1 = c0;
    let c2 = c0;
    let c3 = c0;
    for (let j = 0; j < joints; j++) {
      const amount = load<f32>(weights);
      weights += 4;
      if (amount == 0) continue;
      const w = f32x4.splat(amount);
      const a = affines + (<usize>j << 6);
      c0 = f32x4.add(c0, f32x4.mul(w, v128.load(a)));
      c1 = f32x4.add(c1, f32x4.mul(w, v128.load(a, 16)));
      c2 = f32x4.add(c2, f32x4.mul(w, v128.load(a, 32)));
      c3 = f32x4.add(c3, f32x4.mul(w, v128.load(a, 48)));
    }
    const at = src + (<usize>i << 4);
    c3 = f32x4.add(c3, f32x4.mul(c0, v128.load32_splat(at)));
    c3 = f32x4.add(c3, f32x4.mul(c1, v128.load32_splat(at, 4)));
    c3 = f32x4.add(c3, f32x4.mul(c2, v128.load32_splat(at, 8)));
    v128.store(dst + (<usize>i << 4), c3);
  }
}

export function triangleFrames(verts: usize, faces: usize, frames: usize, origins: usize, count: i32): void {
  for (let i = 0; i < count; i++) {
    const f = faces + <usize>i * 12;
    const a = v128.load(verts + ((<usize>load<u32>(f)) << 4));
    const b = v128.load(verts + ((<usize>load<u32>(f, 4)) << 4));
    const c = v128.load(verts + ((<usize>load<u32>(f, 8)) << 4));
    const edge = f32x4.sub(b, a);
    const other = f32x4.sub(c, a);
    const length = sqrt<f32>(dot(edge, edge));
    const first = f32x4.mul(edge, f32x4.splat(1 / max<f32>(length, 1e-12)));
    const across = cross(edge, other);
    const normal = f32x4.mul(across, f32x4.splat(1 / max<f32>(sqrt<f32>(dot(across, across)), 1e-12)));
    const third = cross(first, normal);
    const size: f32 = 0.5 * (dot(edge, first) + abs<f32>(dot(other, third)));
    const out = frames + (<usize>i << 5);
    v128.store(out, f32x4.replace_lane(first, 3, size));
    v128.store(out, normal, 16);
    v128.store(origins + (<usize>i << 4), f32x4.mul(f32x4.add(f32x4.add(a, b), c), f32x4.splat(1.0 / 3.0)));
  }
}

// @ts-ignore: decorator
@inline
function dot(a: v128, b: v128): f32 {
  const p = f32x4.mul(a, b);
  return f32x4.extract_lane(p, 0) + f32x4.extract_lane(p, 1) + f32x4.extract_lane(p, 2);
}

// @ts-ignore: decorator
@inline
function cross(a: v128, b: v128): v128 {
  const a1 = v128.shuffle<f32>(a, a, 1, 2, 0, 3);
  const b1 = v128.shuffle<f32>(b, b, 1, 2, 0, 3);
  const c = f32x4.sub(f32x4.mul(a, b1), f32x4.mul(a1, b));
  return v128.shuffle<f32>(c, c, 1, 2, 0, 3);
}

export function carry(p: usize, count: i32): void {
  const faces: usize = load<u32>(p);
  const means: usize = load<u32>(p, 4);
  const colors: usize = load<u32>(p, 8);
  const frames: usize = load<u32>(p, 12);
  const origins: usize = load<u32>(p, 16);
  let deltas: usize = load<u32>(p, 20);
  const pairs: i32 = load<i32>(p, 24);
  const pairWeights: usize = load<u32>(p, 28);
  const scales: usize = load<u32>(p, 32);
  const scratch: usize = load<u32>(p, 36);
  const out: usize = load<u32>(p, 40);
  const offset = f32x4.splat(0.5); // of COLOR_LOW in src/kernels.ts
  const levels = f32x4(2047 / 2.5, 2047 / 2.5, 1023 / 2.5, 0);
  for (let i = 0; i < count; i += 4) {
    if (pairs > 0) {
      let w = pairWeights;
      for (let c: usize = 0; c < 6; c++) {
        let sum = i32x4.splat(0);
        for (let k = 0; k < pairs; k++) {
          sum = i32x4.add(sum, i32x4.dot_i16x8_s(v128.load_ext<i8>(deltas), v128.load32_splat(w)));
          deltas += 8;
          w += 4;
        }
        v128.store(scratch + (c << 4), f32x4.mul(f32x4.convert_i32x4_s(sum), v128.load32_splat(scales + (c << 2))));
      }
    }
    for (let k: usize = 0; k < 4; k++) {
      const n = <usize>i + k;
      let mean = v128.load(means + (n << 4));
      let color = v128.load(colors + (n << 4));
      if (pairs > 0) {
        const s = scratch + (k << 2);
        const reach = v128.shuffle<f32>(mean, mean, 3, 3, 3, 3);
        mean = f32x4.add(mean, f32x4.mul(reach, f32x4(load<f32>(s), load<f32>(s, 16), load<f32>(s, 32), 0)));
        color = f32x4.add(color, f32x4(load<f32>(s, 48), load<f32>(s, 64), load<f32>(s, 80), 0));
      }
      const face: usize = load<u32>(faces + (n << 2));
      const first = v128.load(frames + (face << 5));
      const normal = v128.load(frames + (face << 5), 16);
      const third = cross(first, normal);
      let at = f32x4.mul(first, v128.shuffle<f32>(mean, mean, 0, 0, 0, 0));
      at = f32x4.add(at, f32x4.mul(normal, v128.shuffle<f32>(mean, mean, 1, 1, 1, 1)));
      at = f32x4.add(at, f32x4.mul(third, v128.shuffle<f32>(mean, mean, 2, 2, 2, 2)));
      at = f32x4.add(v128.load(origins + (face << 4)), f32x4.mul(at, v128.shuffle<f32>(first, first, 3, 3, 3, 3)));
      const q = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(f32x4.add(color, offset), levels)));
      const held = i32x4.max_s(i32x4.min_s(q, i32x4(2047, 2047, 1023, 0)), i32x4.splat(0));
      const packed = (i32x4.extract_lane(held, 0) << 21) | (i32x4.extract_lane(held, 1) << 10) | i32x4.extract_lane(held, 2);
      v128.store(out + (n << 4), i32x4.replace_lane(at, 3, packed));
    }
  }
}

export function sortSplats(p: usize, count: i32, radial: i32): i32 {
  const posed: usize = load<u32>(p);
  const faces: usize = load<u32>(p, 4);
  const hidden: usize = load<u32>(p, 8);
  const depths: usize = load<u32>(p, 12);
  const counts: usize = load<u32>(p, 16);
  const order: usize = load<u32>(p, 20);
  const along: usize = load<u32>(p, 24);
  const x = load<f32>(along);
  const y = load<f32>(along, 4);
  const z = load<f32>(along, 8);
  let low: f32 = Infinity;
  let high: f32 = -Infinity;
  for (let i: usize = 0; i < <usize>count; i++) {
    if (load<u8>(hidden + load<u32>(faces + (i << 2)))) continue;
    const at = posed + (i << 4);
    const px = load<f32>(at);
    const py = load<f32>(at, 4);
    const pz = load<f32>(at, 8);
    let depth: f32;
    if (radial) {
      const dx = px - x;
      const dy = py - y;
      const dz = pz - z;
      depth = sqrt<f32>(dx * dx + dy * dy + dz * dz);
    } else {
      depth = px * x + py * y + pz * z;
    }
    store<f32>(depths + (i << 2), depth);
    low = min<f32>(low, depth);
    high = max<f32>(high, depth);
  }
  memory.fill(counts, 0, 65536 << 2);
  const scale: f32 = 65535 / max<f32>(high - low, 1e-9);
  let seen = 0;
  for (let i: usize = 0; i < <usize>count; i++) {
    if (load<u8>(hidden + load<u32>(faces + (i << 2)))) continue;
    const key = <u32>((high - load<f32>(depths + (i << 2))) * scale);
    store<u32>(depths + (i << 2), key);
    const c = counts + (<usize>key << 2);
    store<u32>(c, load<u32>(c) + 1);
    seen++;
  }
  let sum: u32 = 0;
  for (let c = counts; c < counts + (65536 << 2); c += 4) {
    const here = load<u32>(c);
    store<u32>(c, sum);
    sum += here;
  }
  for (let i: usize = 0; i < <usize>count; i++) {
    if (load<u8>(hidden + load<u32>(faces + (i << 2)))) continue;
    const c = counts + (<usize>load<u32>(depths + (i << 2)) << 2);
    const place = load<u32>(c);
    store<u32>(c, place + 1);
    store<u32>(order + (<usize>place << 2), <u32>i);
  }
  return seen;
}

export function dense(weight: usize, bias: usize, x: usize, y: usize, rows: i32, cols: i32): void {
  for (let r = 0; r < rows; r++) {
    let sum = f32x4.splat(0);
    for (let c: usize = 0; c < <usize>cols << 2; c += 16) {
      sum = f32x4.add(sum, f32x4.mul(v128.load(weight + c), v128.load(x + c)));
    }
    weight += <usize>cols << 2;
    const total =
      f32x4.extract_lane(sum, 0) + f32x4.extract_lane(sum, 1) + f32x4.extract_lane(sum, 2) + f32x4.extract_lane(sum, 3);
    store<f32>(y + (<usize>r << 2), total + load<f32>(bias + (<usize>r << 2)));
  }
}
