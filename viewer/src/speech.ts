/** Sound to mouth curves in time: a whole recording, or a stream as it comes. */

import {
  activeColumns,
  BANDS,
  COLUMNS_HZ,
  feature,
  FLOOR_FEATURE,
  gatedLevel,
  HOP,
  MARGIN,
  MelColumn,
  speechLevel,
  spreadOnes,
  WINDOW,
} from "./logmel";
import { clamp, smooth } from "./math";
import { STEPS_HZ, type Voice } from "./voice";

/** The mouth may leave its rest this many steps before sound and after it. */
const LEAD_STEPS = 8;

/** Mouth curves that can be asked for at a time of their sound. */
export interface Speech {
  /** Length, s; Infinity for a stream. */
  readonly seconds: number;
  /** Write the face at a time, s, into expressions; false where nothing is known of that time. */
  sample(time: number, expr: Float32Array): boolean;
}

/** Offsets from rest of the last `capacity` steps. */
class Curves {
  private readonly values: Float32Array;
  private readonly width: number;
  /** Steps so far. */
  count = 0;

  constructor(
    private readonly voice: Voice,
    private readonly capacity: number,
  ) {
    this.width = voice.moved.length;
    this.values = new Float32Array(capacity * this.width);
  }

  add(offsets: Float32Array, amount: number): void {
    const at = (this.count++ % this.capacity) * this.width;
    for (let i = 0; i < this.width; i++) this.values[at + i] = amount * offsets[i]!;
  }

  /** Linear between the middles of steps. */
  sample(time: number, expr: Float32Array): boolean {
    if (this.count === 0) return false;
    const first = Math.max(0, this.count - this.capacity);
    const at = clamp(time * STEPS_HZ - 0.5, first, this.count - 1);
    const a = Math.floor(at), b = Math.min(a + 1, this.count - 1), amount = at - a;
    const i = (a % this.capacity) * this.width, j = (b % this.capacity) * this.width;
    const { moved, rest } = this.voice;
    for (let k = 0; k < this.width; k++) {
      const offset = this.values[i + k]! * (1 - amount) + this.values[j + k]! * amount;
      expr[moved[k]!] = clamp(rest[moved[k]!]! + offset, 0, 1);
    }
    return true;
  }
}

/** A whole recording; it is heard ahead of its playing, a little at a time. */
export class Recording implements Speech {
  readonly seconds: number;
  /** Steps of 20 ms. */
  readonly steps: number;
  private readonly curves: Curves;
  private readonly column = new MelColumn();
  private readonly level: number;
  private readonly awake: Float32Array;
  private readonly features = new Float32Array(2 * BANDS);
  private readonly offsets: Float32Array;
  private heard = 0;

  /** Mono samples at 16 kHz. The voice is this recording's alone until `finished`. */
  constructor(
    private readonly voice: Voice,
    private readonly samples: Float32Array,
  ) {
    this.seconds = (samples.length / HOP) / COLUMNS_HZ;
    this.steps = Math.max(1, Math.ceil(samples.length / HOP / 2));
    this.level = speechLevel(samples);
    this.awake = awake(activeColumns(samples), this.steps);
    this.curves = new Curves(voice, this.steps);
    this.offsets = new Float32Array(voice.moved.length);
    voice.reset();
  }

  get finished(): boolean {
    return this.curves.count >= this.steps;
  }

  /** Seconds of curves that are known. */
  get known(): number {
    return this.curves.count / STEPS_HZ;
  }

  /** Hear on until this time's curves are known, at most `steps` steps. */
  advance(time: number, steps: number): void {
    while (!this.finished && this.known < time && steps-- > 0) {
      for (let c = 0; c < 2; c++) {
        const column = 2 * this.heard + c;
        const inside = column * HOP < this.samples.length;
        if (inside) this.column.measure(this.samples, column * HOP - MARGIN, this.features, c * BANDS);
        for (let k = c * BANDS; k < (c + 1) * BANDS; k++) {
          this.features[k] = inside ? feature(this.features[k]!, this.level) : FLOOR_FEATURE;
        }
      }
      this.voice.step(this.features, 0, this.offsets, 0);
      const step = this.heard++ - this.voice.delay;
      if (step >= 0) this.curves.add(this.offsets, this.awake[step]!);
    }
  }

  sample(time: number, expr: Float32Array): boolean {
    return this.curves.sample(time, expr);
  }
}

/** How far the mouth may leave its rest in each step: 1 around sound, 0 in silence, smooth between. */
function awake(active: Uint8Array, steps: number): Float32Array {
  const sound = Uint8Array.from({ length: steps }, (_, k) => active[2 * k]! | active[2 * k + 1]!);
  const wide = spreadOnes(sound, LEAD_STEPS, 1);
  const half = LEAD_STEPS >> 1;
  return Float32Array.from(wide, (_, k) => {
    let sum = 0, count = 0;
    for (let i = Math.max(0, k - half); i <= Math.min(steps - 1, k + half); i++, count++) sum += wide[i]!;
    return smooth(sum / count);
  });
}

const LEVEL_COLUMNS = 10 * COLUMNS_HZ;
const LEVEL_EVERY = 10;
const GATE_DB = 22;
/** A microphone's silence is noise; what never rises above this is not speech. */
const QUIET_DB = -50;

/** A stream, as it comes; curves are known `delay` steps late. */
export class Live implements Speech {
  readonly seconds = Infinity;
  private readonly curves: Curves;
  private readonly column = new MelColumn();
  private readonly buffer = new Float32Array(WINDOW + 2 * HOP);
  private filled = MARGIN;
  private readonly db = new Float32Array(LEVEL_COLUMNS).fill(-120);
  private columns = 0;
  private level = -Infinity;
  private quietFor = 1000;
  private open = 0;
  private readonly features = new Float32Array(2 * BANDS);
  private readonly offsets: Float32Array;

  constructor(private readonly voice: Voice) {
    this.curves = new Curves(voice, 10 * STEPS_HZ);
    this.offsets = new Float32Array(voice.moved.length);
    voice.reset();
  }

  /** Seconds of sound whose curves are known. */
  get known(): number {
    return this.curves.count / STEPS_HZ;
  }

  /** Hear mono samples at 16 kHz. */
  push(samples: Float32Array): void {
    for (let i = 0; i < samples.length; i++) {
      this.buffer[this.filled++] = samples[i]!;
      if (this.filled === WINDOW) {
        this.hear();
        this.buffer.copyWithin(0, HOP, WINDOW);
        this.filled = WINDOW - HOP;
      }
    }
  }

  sample(time: number, expr: Float32Array): boolean {
    return this.curves.sample(time, expr);
  }

  private hear(): void {
    const half = (this.columns & 1) * BANDS;
    this.column.measure(this.buffer, 0, this.features, half);
    let power = 0;
    for (let i = MARGIN; i < MARGIN + HOP; i++) power += this.buffer[i]! ** 2 / HOP;
    const db = 10 * Math.log10(power + 1e-12);
    this.db[this.columns % LEVEL_COLUMNS] = db;
    if (this.columns % LEVEL_EVERY === 0) this.level = gatedLevel(this.db);
    const speech = this.level > QUIET_DB;
    this.quietFor = speech && db > this.level - GATE_DB ? 0 : this.quietFor + 1;
    for (let k = half; k < half + BANDS; k++) {
      this.features[k] = feature(this.features[k]!, speech ? this.level : -Infinity);
    }
    if (this.columns++ & 1) this.step();
  }

  private step(): void {
    this.voice.step(this.features, 0, this.offsets, 0);
    // What was heard just now lies `delay` steps after the step that comes out: that much lead is free.
    const wanted = this.quietFor < 2 * (this.voice.delay + LEAD_STEPS) ? 1 : 0;
    this.open += clamp(wanted - this.open, -1 / LEAD_STEPS, 1 / LEAD_STEPS);
    if (this.columns / 2 > this.voice.delay) this.curves.add(this.offsets, smooth(this.open));
  }
}

const KERNEL_STEPS = 64;

/** Mono sound of any rate to 16 kHz, piece by piece: windowed sinc, cut below the lower Nyquist. */
export class Resampler {
  private readonly taps: number;
  /** One side of the kernel, KERNEL_STEPS entries for each input sample. */
  private readonly kernel: Float32Array;
  private history: Float32Array;
  /** Where the next output lies, in input samples from the start of `history`. */
  private at: number;

  constructor(
    private readonly rate: number,
    private readonly wanted: number,
  ) {
    const cut = Math.min(1, wanted / rate) * 0.95;
    this.taps = Math.ceil(12 / cut);
    this.kernel = Float32Array.from({ length: (this.taps + 1) * KERNEL_STEPS + 1 }, (_, i) => {
      const d = i / KERNEL_STEPS, x = d * cut * Math.PI;
      return d >= this.taps ? 0 : (x === 0 ? 1 : Math.sin(x) / x) * (0.5 + 0.5 * Math.cos((Math.PI * d) / this.taps)) * cut;
    });
    this.history = new Float32Array(this.taps);
    this.at = this.taps;
  }

  push(input: Float32Array): Float32Array {
    const joined = new Float32Array(this.history.length + input.length);
    joined.set(this.history);
    joined.set(input, this.history.length);
    const step = this.rate / this.wanted;
    const out = new Float32Array(Math.max(0, Math.ceil((joined.length - this.taps - this.at) / step)));
    for (let i = 0; i < out.length; i++, this.at += step) {
      let sum = 0;
      for (let k = Math.ceil(this.at - this.taps); k < this.at + this.taps; k++) {
        sum += this.kernel[Math.round(Math.abs(k - this.at) * KERNEL_STEPS)]! * joined[k]!;
      }
      out[i] = sum;
    }
    const keep = Math.floor(this.at) - this.taps;
    this.history = joined.slice(keep);
    this.at -= keep;
    return out;
  }
}
