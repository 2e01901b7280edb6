/** avatar.gsth.bin: see docs/player.md. */

type DType = "u8" | "i8" | "u16" | "i16" | "u32" | "f16" | "f32";
type Values = Uint8Array | Int8Array | Uint16Array | Int16Array | Uint32Array | Float32Array;

interface Entry {
  dtype: DType;
  shape: number[];
  offset: number;
  start?: number[];
  step?: number[];
}

export interface Header {
  format: string;
  expressions: string[];
  /** Expressions of the head that `expression_map` makes of the file's own shapes. */
  mapped?: string[];
  joints: string[];
  parents: number[];
  camera: { width: number; height: number; K: number[][] };
  fps: number;
  payload_bytes: number;
  arrays: Record<string, Entry>;
}

const MAGIC = "GSTHAVTR";
const VERSION = 2;
const MAX_PAYLOAD = 2 ** 28;

/** A parsed file. */
export class AvatarFile {
  private constructor(
    readonly header: Header,
    private readonly payload: ArrayBuffer,
  ) {}

  /** Reads a file; throws an Error that says what is wrong with it. */
  static async parse(data: ArrayBuffer): Promise<AvatarFile> {
    const view = new DataView(data);
    if (data.byteLength < 16 || new TextDecoder().decode(new Uint8Array(data, 0, 8)) !== MAGIC) {
      throw new Error("not an avatar.gsth.bin: it does not begin with " + MAGIC);
    }
    const version = view.getUint32(8, true);
    if (version > VERSION) throw new Error(`avatar.gsth.bin of version ${version}; this player reads up to ${VERSION}`);
    const length = view.getUint32(12, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 16, length))) as Header;
    if (header.payload_bytes > MAX_PAYLOAD) throw new Error("avatar.gsth.bin: its payload is out of bounds");
    const unzipped = new Response(data.slice(16 + length)).body!.pipeThrough(new DecompressionStream("gzip"));
    const payload = await new Response(unzipped).arrayBuffer();
    if (payload.byteLength !== header.payload_bytes) throw new Error("avatar.gsth.bin is cut short; download it again");
    return new AvatarFile(header, payload);
  }

  /** What poses hold: the head's expressions; where the shapes are the person's own, those follow. */
  get expressions(): string[] {
    return [...(this.header.mapped ?? []), ...this.header.expressions];
  }

  has(name: string): boolean {
    return name in this.header.arrays;
  }

  names(): string[] {
    return Object.keys(this.header.arrays);
  }

  shape(name: string): number[] {
    return this.entry(name).shape;
  }

  /** The stored numbers; float16 as its uint16 bits. */
  raw(name: string): Values {
    const entry = this.entry(name);
    const count = entry.shape.reduce((a, b) => a * b, 1);
    const types = {
      u8: Uint8Array,
      i8: Int8Array,
      u16: Uint16Array,
      f16: Uint16Array,
      i16: Int16Array,
      u32: Uint32Array,
      f32: Float32Array,
    };
    return new types[entry.dtype](this.payload, entry.offset, count);
  }

  /** The numbers that are meant, with start and step applied. */
  values(name: string): Float32Array {
    const entry = this.entry(name);
    const raw = this.raw(name);
    if (entry.dtype === "f16") return Float32Array.from(raw, half);
    const { start, step } = entry;
    if (!start || !step) return Float32Array.from(raw);
    return Float32Array.from(raw, (q, i) => start[i % step.length]! + step[i % step.length]! * q);
  }

  private entry(name: string): Entry {
    const entry = this.header.arrays[name];
    if (!entry) throw new Error(`avatar.gsth.bin has no ${name}; export it again`);
    return entry;
  }
}

function half(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return exponent === 31 ? NaN : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
