/**
 * The inner loops over one shared memory: compiled (assembly/kernels.ts, SIMD) where the browser can, else these.
 *
 * Addresses are bytes and multiples of 16. Points are stored as four floats, the fourth unused unless said. Nothing
 * allocates; arguments are whole numbers, because fractions would be boxed on their way.
 */

/** Colours are packed as 11, 11 and 10 bits over this range. */
export const COLOR_LOW = -0.5;
export const COLOR_SPAN = 2.5;

export interface Kernels {
  /**
   * For each shape, verts[vert[i]] += amount * delta[i] for its next `count` entries. `params`: addresses of vertices,
   * vert, delta (four int16 each), and of the shapes' counts and amounts.
   */
  addShapes(params: number, shapes: number): void;
  /** Linear blend skinning; an affine is four columns of four floats. */
  skin(src: number, dst: number, weights: number, affines: number, count: number, joints: number): void;
  /** Per triangle: first edge's direction and size, normal and 0; and the centroid (gsth.render.triangle_frames). */
  triangleFrames(verts: number, faces: number, frames: number, origins: number, count: number): void;
  /**
   * Splat centres and colours out of triangle frames and correctives; a texel is x, y, z and the packed colour. A mean's
   * fourth float is what its splat's corrective offsets are multiplied with.
   * `params`: addresses of faces, means, colours, frames, origins, deltas; number of corrective pairs; addresses of
   * pair weights, scales, scratch (96 bytes), output. `count` is a multiple of 4.
   */
  carry(params: number, count: number): void;
  /**
   * Farthest first into `order`; returns how many. `params`: addresses of posed texels, faces, hidden (byte per
   * face), depths, counts (65,536), order, and of a point. Radial: distance from the point; else depth along it.
   */
  sortSplats(params: number, count: number, radial: number): number;
  /** y = W x + b, W row by row; `cols` is a multiple of 4. */
  dense(weight: number, bias: number, x: number, y: number, rows: number, cols: number): void;
}

/** The compiled kernels on a memory, or null where this browser has no WebAssembly SIMD. */
export async function compiled(module: Uint8Array, memory: WebAssembly.Memory): Promise<Kernels | null> {
  try {
    const made = await WebAssembly.instantiate(module as BufferSource, { env: { memory } });
    return made.instance.exports as unknown as Kernels;
  } catch (error) {
    if (error instanceof WebAssembly.CompileError || error instanceof WebAssembly.LinkError) return null;
    throw error;
  }
}

/** The same in plain code. */
export class PlainKernels implements Kernels {
  private readonly f32: Float32Array;
  private readonly u32: Uint32Array;
  private readonly i16: Int16Array;
  private readonly i8: Int8Array;
  private readonly u8: Uint8Array;

  constructor(buffer: ArrayBuffer) {
    this.f32 = new Float32Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.i16 = new Int16Array(buffer);
    this.i8 = new Int8Array(buffer);
    this.u8 = new Uint8Array(buffer);
  }

  addShapes(params: number, shapes: number): void {
    const { f32, u32, i16 } = this;
    const p = params >> 2;
    const verts = u32[p]! >> 2, counts = u32[p + 3]! >> 2, amounts = u32[p + 4]! >> 2;
    let v = u32[p + 1]! >> 2, d = u32[p + 2]! >> 1;
    for (let e = 0; e < shapes; e++) {
      const end = v + u32[counts + e]!, amount = f32[amounts + e]!;
      if (amount === 0) {
        d += (end - v) * 4;
        v = end;
        continue;
      }
      for (; v < end; v++, d += 4) {
        const at = verts + u32[v]! * 4;
        f32[at]! += amount * i16[d]!;
        f32[at + 1]! += amount * i16[d + 1]!;
        f32[at + 2]! += amount * i16[d + 2]!;
      }
    }
  }

  skin(src: number, dst: number, weights: number, affines: number, count: number, joints: number): void {
    const { f32 } = this;
    for (let i = 0, s = src >> 2, d = dst >> 2, w = weights >> 2; i < count; i++, s += 4, d += 4, w += joints) {
      const x = f32[s]!, y = f32[s + 1]!, z = f32[s + 2]!;
      let ox = 0, oy = 0, oz = 0;
      for (let j = 0, a = affines >> 2; j < joints; j++, a += 16) {
        const amount = f32[w + j]!;
        if (amount === 0) continue;
        ox += amount * (f32[a]! * x + f32[a + 4]! * y + f32[a + 8]! * z + f32[a + 12]!);
        oy += amount * (f32[a + 1]! * x + f32[a + 5]! * y + f32[a + 9]! * z + f32[a + 13]!);
        oz += amount * (f32[a + 2]! * x + f32[a + 6]! * y + f32[a + 10]! * z + f32[a + 14]!);
      }
      f32[d] = ox;
      f32[d + 1] = oy;
      f32[d + 2] = oz;
    }
  }

  triangleFrames(verts: number, faces: number, frames: number, origins: number, count: number): void {
    const { f32, u32 } = this;
    const base = verts >> 2;
    for (let i = 0, f = faces >> 2, o = frames >> 2, c = origins >> 2; i < count; i++, f += 3, o += 8, c += 4) {
      const pa = base + u32[f]! * 4, pb = base + u32[f + 1]! * 4, pc = base + u32[f + 2]! * 4;
      const ax = f32[pa]!, ay = f32[pa + 1]!, az = f32[pa + 2]!;
      const ex = f32[pb]! - ax, ey = f32[pb + 1]! - ay, ez = f32[pb + 2]! - az;
      const gx = f32[pc]! - ax, gy = f32[pc + 1]! - ay, gz = f32[pc + 2]! - az;
      const length = 1 / Math.max(Math.sqrt(ex * ex + ey * ey + ez * ez), 1e-12);
      const fx = ex * length, fy = ey * length, fz = ez * length;
      let nx = ey * gz - ez * gy, ny = ez * gx - ex * gz, nz = ex * gy - ey * gx;
      const area = 1 / Math.max(Math.sqrt(nx * nx + ny * ny + nz * nz), 1e-12);
      nx *= area;
      ny *= area;
      nz *= area;
      const tx = fy * nz - fz * ny, ty = fz * nx - fx * nz, tz = fx * ny - fy * nx;
      f32[o] = fx;
      f32[o + 1] = fy;
      f32[o + 2] = fz;
      f32[o + 3] = 0.5 * (ex * fx + ey * fy + ez * fz + Math.abs(gx * tx + gy * ty + gz * tz));
      f32[o + 4] = nx;
      f32[o + 5] = ny;
      f32[o + 6] = nz;
      f32[c] = ax + (ex + gx) / 3;
      f32[c + 1] = ay + (ey + gy) / 3;
      f32[c + 2] = az + (ez + gz) / 3;
    }
  }

  carry(params: number, count: number): void {
    const { f32, u32, i16, i8 } = this;
    const p = params >> 2;
    const faces = u32[p]! >> 2, means = u32[p + 1]! >> 2, colors = u32[p + 2]! >> 2;
    const frames = u32[p + 3]! >> 2, origins = u32[p + 4]! >> 2, deltas = u32[p + 5]!, pairs = u32[p + 6]!;
    const pairWeights = u32[p + 7]! >> 1, scales = u32[p + 8]! >> 2, out = u32[p + 10]! >> 2;
    const sums = this.f32.subarray(u32[p + 9]! >> 2, (u32[p + 9]! >> 2) + 6);
    sums.fill(0);
    for (let n = 0; n < count; n++) {
      for (let c = 0; c < 6 && pairs > 0; c++) {
        let sum = 0;
        // Blocks of four splats: [channel, pair, splat, two].
        for (let k = 0, d = deltas + (((n >> 2) * 6 + c) * pairs * 4 + (n & 3)) * 2; k < pairs; k++, d += 8) {
          const w = pairWeights + (c * pairs + k) * 2;
          sum += i8[d]! * i16[w]! + i8[d + 1]! * i16[w + 1]!;
        }
        sums[c] = sum * f32[scales + c]!;
      }
      const m = means + n * 4, o = out + n * 4;
      const face = u32[faces + n]!;
      const a = frames + face * 8, at = origins + face * 4;
      const fx = f32[a]!, fy = f32[a + 1]!, fz = f32[a + 2]!, size = f32[a + 3]!;
      const nx = f32[a + 4]!, ny = f32[a + 5]!, nz = f32[a + 6]!;
      const reach = f32[m + 3]!;
      const x = (f32[m]! + reach * sums[0]!) * size;
      const y = (f32[m + 1]! + reach * sums[1]!) * size;
      const z = (f32[m + 2]! + reach * sums[2]!) * size;
      f32[o] = f32[at]! + fx * x + nx * y + (fy * nz - fz * ny) * z;
      f32[o + 1] = f32[at + 1]! + fy * x + ny * y + (fz * nx - fx * nz) * z;
      f32[o + 2] = f32[at + 2]! + fz * x + nz * y + (fx * ny - fy * nx) * z;
      const rgb = colors + n * 4;
      u32[o + 3] =
        ((level(f32[rgb]! + sums[3]!, 2047) << 21) |
          (level(f32[rgb + 1]! + sums[4]!, 2047) << 10) |
          level(f32[rgb + 2]! + sums[5]!, 1023)) >>>
        0;
    }
  }

  sortSplats(params: number, count: number, radial: number): number {
    const { f32, u32, u8 } = this;
    const p = params >> 2;
    const posed = u32[p]! >> 2, faces = u32[p + 1]! >> 2, hidden = u32[p + 2]!;
    const depths = u32[p + 3]! >> 2, counts = u32[p + 4]! >> 2, order = u32[p + 5]! >> 2, along = u32[p + 6]! >> 2;
    const x = f32[along]!, y = f32[along + 1]!, z = f32[along + 2]!;
    let low = Infinity, high = -Infinity, seen = 0;
    for (let i = 0; i < count; i++) {
      if (u8[hidden + u32[faces + i]!]) continue;
      const at = posed + i * 4;
      const px = f32[at]!, py = f32[at + 1]!, pz = f32[at + 2]!;
      const depth = Math.fround(
        radial ? Math.sqrt((px - x) ** 2 + (py - y) ** 2 + (pz - z) ** 2) : px * x + py * y + pz * z,
      );
      f32[depths + i] = depth;
      if (depth < low) low = depth;
      if (depth > high) high = depth;
    }
    u32.fill(0, counts, counts + 65536);
    const scale = 65535 / Math.max(high - low, 1e-9);
    for (let i = 0; i < count; i++) {
      if (u8[hidden + u32[faces + i]!]) continue;
      const key = ((high - f32[depths + i]!) * scale) >>> 0;
      u32[depths + i] = key;
      u32[counts + key]!++;
      seen++;
    }
    for (let c = counts, sum = 0; c < counts + 65536; c++) {
      const here = u32[c]!;
      u32[c] = sum;
      sum += here;
    }
    for (let i = 0; i < count; i++) {
      if (u8[hidden + u32[faces + i]!]) continue;
      u32[order + u32[counts + u32[depths + i]!]!++] = i;
    }
    return seen;
  }

  dense(weight: number, bias: number, x: number, y: number, rows: number, cols: number): void {
    const { f32 } = this;
    for (let r = 0, w = weight >> 2; r < rows; r++, w += cols) {
      let sum = f32[(bias >> 2) + r]!;
      for (let c = 0; c < cols; c++) sum += f32[w + c]! * f32[(x >> 2) + c]!;
      f32[(y >> 2) + r] = sum;
    }
  }
}

function level(value: number, top: number): number {
  return Math.min(Math.max(Math.round(((value - COLOR_LOW) * top) / COLOR_SPAN), 0), top);
}

/** Hands out 16-byte aligned pieces of a memory that has not been made yet, then makes it. */
export class Arena {
  private size = 16;

  /** Room for `bytes`; the address. */
  take(bytes: number): number {
    const at = this.size;
    this.size = (this.size + bytes + 15) & ~15;
    return at;
  }

  memory(): WebAssembly.Memory {
    return new WebAssembly.Memory({ initial: Math.ceil(this.size / 65536) });
  }
}
