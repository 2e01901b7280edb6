/** Sound to mouth curves in time: a whole recording, or a stream as it comes. */

import { COLUMNS_HZ, HOP, MARGIN, speechLevel, WINDOW } from "./logmel";
import { clamp } from "./math";
import { StepStream } from "./steps";
import { STEPS_HZ, type Voice } from "./voice";

/** Mouth curves that can be asked for at a time of their sound. */
export interface Speech {
  /** Length, s; Infinity for a stream. */
  readonly seconds: number;
  /** The time that is asked for, s. */
  time: number;
  /** Hear what is needed for it. */
  follow(): void;
  /** Write the face of that time into expressions; false where nothing is known of it. */
  sample(expr: Float32Array): boolean;
  /** How accented the syllable of that time is, 0 to 1. */
  readonly accent: number;
}

/** Of a recording: heard in any case beyond its time, and at most so many steps in one frame beyond that, s. */
const NEEDED_S = 0.05, AHEAD_S = 2;
const AHEAD_STEPS = 12;

/** The last `capacity` steps: offsets from rest, and the accent. */
class Curves {
  private readonly values: Float32Array;
  private readonly width: number;
  /** Steps so far. */
  count = 0;
  time = 0;

  constructor(
    private readonly voice: Voice,
    private readonly capacity: number,
  ) {
    this.width = voice.moved.length + 1;
    this.values = new Float32Array(capacity * this.width);
  }

  add(offsets: Float32Array, said: Float64Array): void {
    const at = (this.count++ % this.capacity) * this.width, awake = said[0]!, accent = said[1]!;
    for (let i = 0; i < offsets.length; i++) this.values[at + i] = awake * offsets[i]!;
    this.values[at + offsets.length] = awake * accent;
  }

  sample(expr: Float32Array): boolean {
    if (this.count === 0) return false;
    const { moved, rest } = this.voice, at = this.place();
    for (let k = 0; k < moved.length; k++) expr[moved[k]!] = clamp(rest[moved[k]!]! + this.between(at, k), 0, 1);
    return true;
  }

  get accent(): number {
    return this.count === 0 ? 0 : this.between(this.place(), this.width - 1);
  }

  /** In steps, from the middle of the first. */
  private place(): number {
    return clamp(this.time * STEPS_HZ - 0.5, Math.max(0, this.count - this.capacity), this.count - 1);
  }

  /** Linear between the middles of steps. */
  private between(at: number, channel: number): number {
    const a = Math.floor(at), b = Math.min(a + 1, this.count - 1), amount = at - a;
    const i = (a % this.capacity) * this.width + channel, j = (b % this.capacity) * this.width + channel;
    return this.values[i]! * (1 - amount) + this.values[j]! * amount;
  }
}

/** What is known of a sound, however it comes. */
abstract class Heard implements Speech {
  abstract readonly seconds: number;

  constructor(protected readonly curves: Curves) {}

  abstract follow(): void;

  /** Seconds of sound whose curves are known. */
  get known(): number {
    return this.curves.count / STEPS_HZ;
  }

  get time(): number {
    return this.curves.time;
  }

  set time(time: number) {
    this.curves.time = time;
  }

  sample(expr: Float32Array): boolean {
    return this.curves.sample(expr);
  }

  get accent(): number {
    return this.curves.accent;
  }
}

/** A whole recording; it is heard ahead of its playing, a little at a time. */
export class Recording extends Heard {
  readonly seconds: number;
  /** Steps of 20 ms. */
  readonly steps: number;
  private readonly stream: StepStream;
  private column = 0;

  /** Mono samples at 16 kHz. The voice is this recording's alone until `finished`. */
  constructor(
    voice: Voice,
    private readonly samples: Float32Array,
  ) {
    const steps = Math.max(1, Math.ceil(samples.length / HOP / 2));
    super(new Curves(voice, steps));
    this.seconds = samples.length / HOP / COLUMNS_HZ;
    this.steps = steps;
    this.stream = new StepStream(voice, speechLevel(samples), (offsets, said) => this.curves.add(offsets, said));
  }

  get finished(): boolean {
    return this.curves.count >= this.steps;
  }

  follow(): void {
    while (!this.finished && this.known < this.curves.time + NEEDED_S) this.step();
    for (let i = 0; i < AHEAD_STEPS && !this.finished && this.known < this.curves.time + AHEAD_S; i++) this.step();
  }

  /** Hear all of it. */
  finish(): void {
    while (!this.finished) this.step();
  }

  private step(): void {
    for (let c = 0; c < 2; c++) {
      const at = this.column++ * HOP;
      if (at < this.samples.length) this.stream.hear(this.samples, at - MARGIN);
      else this.stream.hush();
    }
  }
}

/** A microphone's silence is noise; what never rises above this is not speech, dB of full scale. */
const QUIET_DB = -50;

/** A stream, as it comes; curves are known `delay` steps late. */
export class Live extends Heard {
  readonly seconds = Infinity;
  private readonly stream: StepStream;
  private readonly buffer = new Float32Array(WINDOW);
  private filled = MARGIN;

  constructor(voice: Voice, quietDb = QUIET_DB) {
    super(new Curves(voice, 10 * STEPS_HZ));
    this.stream = new StepStream(voice, null, (offsets, said) => this.curves.add(offsets, said), quietDb);
  }

  follow(): void {} // its sound comes when it comes

  /** Hear mono samples at 16 kHz, the first `count` of them. */
  push(samples: Float32Array, count = samples.length): void {
    for (let i = 0; i < count; i++) {
      this.buffer[this.filled++] = samples[i]!;
      if (this.filled === WINDOW) {
        this.stream.hear(this.buffer, 0);
        this.buffer.copyWithin(0, HOP, WINDOW);
        this.filled = WINDOW - HOP;
      }
    }
  }
}

const KERNEL_STEPS = 64;

/** Mono sound of any rate to 16 kHz, piece by piece: windowed sinc, cut below the lower Nyquist. */
export class Resampler {
  /** What the last piece became, as many as `push` said. */
  out = new Float32Array(0);
  private readonly taps: number;
  /** One side of the kernel, KERNEL_STEPS entries for each input sample. */
  private readonly kernel: Float32Array;
  /** Input that is still needed, `held` samples of it. */
  private input: Float32Array;
  private held: number;
  /** Where the next output lies, in samples of `input`. */
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
    this.input = new Float32Array(this.taps);
    this.held = this.taps;
    this.at = this.taps;
  }

  /** Fill `out`; returns with how many samples. */
  push(piece: Float32Array): number {
    const step = this.rate / this.wanted, end = this.held + piece.length;
    if (end > this.input.length) {
      const larger = new Float32Array(2 * end);
      larger.set(this.input);
      this.input = larger;
    }
    const { input, kernel, taps } = this;
    input.set(piece, this.held);
    const count = Math.max(0, Math.ceil((end - taps - this.at) / step));
    if (count > this.out.length) this.out = new Float32Array(2 * count);
    let at = this.at;
    for (let i = 0; i < count; i++, at += step) {
      let sum = 0;
      for (let k = Math.ceil(at - taps); k < at + taps; k++) {
        sum += kernel[Math.round(Math.abs(k - at) * KERNEL_STEPS)]! * input[k]!;
      }
      this.out[i] = sum;
    }
    const gone = Math.floor(at) - taps;
    input.copyWithin(0, gone, end);
    this.held = end - gone;
    this.at = at - gone;
    return count;
  }
}
