/**
 * Quaternions wxyz in plain arrays at an offset, so that nothing is allocated: Math.hypot would, and so would fractional
 * arguments and results of functions that the engine does not inline, which it boxes. Hence also time and the like in
 * fields and arrays wherever something runs at every frame.
 */

export type Floats = Float32Array | Float64Array | number[];

/** out = a b: first rotates by b, then by a. */
export function quatMul(out: Floats, o: number, a: Floats, i: number, b: Floats, j: number): void {
  const aw = a[i]!, ax = a[i + 1]!, ay = a[i + 2]!, az = a[i + 3]!;
  const bw = b[j]!, bx = b[j + 1]!, by = b[j + 2]!, bz = b[j + 3]!;
  out[o] = aw * bw - ax * bx - ay * by - az * bz;
  out[o + 1] = aw * bx + ax * bw + ay * bz - az * by;
  out[o + 2] = aw * by - ax * bz + ay * bw + az * bx;
  out[o + 3] = aw * bz + ax * by - ay * bx + az * bw;
}

/** Rotation matrix, row by row, of a quaternion of any length but 0. */
export function quatToMat(out: Floats, q: Floats, i: number): void {
  const n = 1 / Math.sqrt(q[i]! ** 2 + q[i + 1]! ** 2 + q[i + 2]! ** 2 + q[i + 3]! ** 2);
  const w = q[i]! * n, x = q[i + 1]! * n, y = q[i + 2]! * n, z = q[i + 3]! * n;
  out[0] = 1 - 2 * (y * y + z * z);
  out[1] = 2 * (x * y - w * z);
  out[2] = 2 * (x * z + w * y);
  out[3] = 2 * (x * y + w * z);
  out[4] = 1 - 2 * (x * x + z * z);
  out[5] = 2 * (y * z - w * x);
  out[6] = 2 * (x * z - w * y);
  out[7] = 2 * (y * z + w * x);
  out[8] = 1 - 2 * (x * x + y * y);
}

/** Rotation vector, rad, angle at most pi. */
export function quatToRotvec(out: Floats, o: number, q: Floats, i: number): void {
  const sign = q[i]! < 0 ? -1 : 1;
  const sin = Math.sqrt(q[i + 1]! ** 2 + q[i + 2]! ** 2 + q[i + 3]! ** 2);
  const factor = sign * (sin < 1e-7 ? 2 : (2 * Math.atan2(sin, sign * q[i]!)) / sin);
  for (let k = 0; k < 3; k++) out[o + k] = q[i + 1 + k]! * factor;
}

/** Quaternion of a rotation vector, rad; out may be v. */
export function rotvecToQuat(out: Floats, o: number, v: Floats, i: number): void {
  const x = v[i]!, y = v[i + 1]!, z = v[i + 2]!;
  const angle = Math.sqrt(x * x + y * y + z * z);
  const scale = angle < 1e-8 ? 0.5 : Math.sin(angle / 2) / angle;
  out[o] = Math.cos(angle / 2);
  out[o + 1] = x * scale;
  out[o + 2] = y * scale;
  out[o + 3] = z * scale;
}

/** Blend of two unit quaternions on the shorter way, unit again; out may be a or b. */
export function quatMix(out: Floats, o: number, a: Floats, i: number, b: Floats, j: number, amount: number): void {
  let dot = 0;
  for (let k = 0; k < 4; k++) dot += a[i + k]! * b[j + k]!;
  const other = dot < 0 ? -amount : amount;
  let norm = 0;
  for (let k = 0; k < 4; k++) {
    const v = a[i + k]! * (1 - amount) + b[j + k]! * other;
    out[o + k] = v;
    norm += v * v;
  }
  norm = 1 / Math.max(Math.sqrt(norm), 1e-12);
  for (let k = 0; k < 4; k++) out[o + k]! *= norm;
}

export function clamp(x: number, low: number, high: number): number {
  return Math.min(Math.max(x, low), high);
}

/** Smoothstep of x held to 0..1. */
export function smooth(x: number): number {
  const t = clamp(x, 0, 1);
  return t * t * (3 - 2 * t);
}

/** Random numbers of a seed, 0 to 1 (mulberry32). */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** A draw from the standard normal distribution (Box and Muller 1958). */
export function gaussian(uniform: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}
