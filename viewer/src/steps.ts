/** Sound to steps of 20 ms, as gsth/drive/_stream.py: what the mouth does, whether it speaks, what is accented. */

import { BANDS, COLUMNS_HZ, feature, FLOOR_FEATURE, HOP, MARGIN, MelColumn, SILENT_DB } from "./logmel";
import { clamp, smooth } from "./math";
import type { Voice } from "./voice";

/** Columns that are worked on at a time where the level is not known: it is looked at so often. */
const BLOCK = 4;
/** What is so far below the level of the speech, or farther, is breath and room. */
const ACTIVE_DB = 15;
/** Steps for which the mouth stays awake after speech, and before it, and half of the ramp in between. */
const BEHIND = 10, AHEAD = 5, RAMP = 3;
const GATE_DB = 22;
/** The running level forgets with this time constant of speech. */
const LEVEL_S = 4;
/** The running peak falls by 1.5 dB a second. */
const PEAK_FALL = 10 ** ((-0.1 * 1.5) / COLUMNS_HZ);
/** A syllable that is so much louder than what was before it is fully accented. */
const ACCENT_DB = 7;
const ACCENT_BEHIND = 40, ACCENT_HALF = 4;
/** Steps that are remembered: more than ACCENT_BEHIND and the look-ahead. */
const HELD = 64;
const NOTHING_DB = -1e3;

/** The level of the speech so far, dB of full scale: gated like logmel's, but causal. */
class RunningLevel {
  private readonly recent = new Float64Array(10);
  private count = 0;
  private peak = 0;
  private mean = 0;
  private heard = 0;

  constructor(private readonly quietDb: number) {}

  /** Hear the mean square of a column. */
  push(power: number): void {
    this.recent[this.count++ % this.recent.length] = power;
    let sum = 0;
    for (let i = 0; i < this.recent.length; i++) sum += this.recent[i]!;
    this.peak = Math.max(this.peak * PEAK_FALL, sum / Math.min(this.count, this.recent.length));
    if (power > this.peak * 10 ** (-0.1 * GATE_DB) && power > 10 ** (0.1 * this.quietDb)) {
      this.heard++;
      this.mean += (power - this.mean) / Math.min(this.heard, LEVEL_S * COLUMNS_HZ);
    }
  }

  /** -Infinity before the first speech. */
  get db(): number {
    return this.mean > 0 ? 10 * Math.log10(this.mean) : -Infinity;
  }
}

/** Takes a step: offsets from rest; 0 (silence) to 1 (speech), and 0 to 1 for how accented it is. */
export type StepSink = (offsets: Float32Array, said: Float64Array) => void;

/** Columns of 10 ms in, steps out; each step looks `voice.delay` steps ahead. The voice is this one's alone. */
export class StepStream {
  private readonly column = new MelColumn();
  private readonly running: RunningLevel | null;
  private readonly powers = new Float32Array(BLOCK * BANDS);
  private readonly own = new Float64Array(BLOCK);
  private pending = 0;
  private readonly features = new Float32Array(2 * BANDS);
  private readonly above = new Float64Array(2);
  private columns = 0;
  private readonly offsets: Float32Array;
  private readonly said = new Float64Array(2);
  private readonly active = new Uint8Array(HELD);
  private readonly loud = new Float64Array(HELD).fill(-ACTIVE_DB);
  private steps = 0;

  /**
   * `level`: of the speech, dB of full scale; null estimates it while listening. What does not rise above `quietDb`
   * is silence.
   */
  constructor(
    private readonly voice: Voice,
    private readonly level: number | null,
    private readonly sink: StepSink,
    private readonly quietDb = SILENT_DB,
  ) {
    this.running = level === null ? new RunningLevel(quietDb) : null;
    this.offsets = new Float32Array(voice.moved.length);
    voice.reset();
  }

  /** Hear the next 10 ms, whose window begins at `start`; samples beyond either end are 0. */
  hear(samples: Float32Array, start: number): void {
    this.column.measure(samples, start, this.powers, this.pending * BANDS);
    let power = 0;
    for (let i = start + MARGIN; i < Math.min(start + MARGIN + HOP, samples.length); i++) power += samples[i]! ** 2 / HOP;
    this.own[this.pending++] = power;
    if (this.level !== null || this.pending === BLOCK) this.flush();
  }

  /** Hear 10 ms of silence after the end. */
  hush(): void {
    const half = (this.columns & 1) * BANDS;
    this.features.fill(FLOOR_FEATURE, half, half + BANDS);
    this.complete(NOTHING_DB);
  }

  private flush(): void {
    if (this.running) for (let c = 0; c < this.pending; c++) this.running.push(this.own[c]!);
    const level = this.running?.db ?? this.level!;
    for (let c = 0; c < this.pending; c++) {
      const half = (this.columns & 1) * BANDS;
      for (let k = 0; k < BANDS; k++) this.features[half + k] = feature(this.powers[c * BANDS + k]!, level);
      const db = 10 * Math.log10(this.own[c]! + 1e-12);
      this.complete(Number.isFinite(level) && db > this.quietDb ? db - level : NOTHING_DB);
    }
    this.pending = 0;
  }

  /** A column's features are in place, so many dB above the level. */
  private complete(above: number): void {
    this.above[this.columns & 1] = above;
    if (this.columns++ & 1) this.step();
  }

  private step(): void {
    const a = this.above[0]!, b = this.above[1]!, at = this.steps % HELD;
    this.active[at] = Math.max(a, b) > -ACTIVE_DB ? 1 : 0;
    this.loud[at] = clamp((a + b) / 2, -ACTIVE_DB, 20);
    this.voice.step(this.features, 0, this.offsets, 0);
    const now = this.steps++ - this.voice.delay;
    if (now < 0) return;
    this.said[0] = this.awake(now);
    this.said[1] = this.accent(now);
    this.sink(this.offsets, this.said);
  }

  /** 1 near sound, with ramps that begin before it. */
  private awake(now: number): number {
    const widths = RAMP + this.voice.delay - AHEAD + 1;
    let sum = 0;
    for (let i = 0; i < widths; i++) {
      const first = now - BEHIND - RAMP + i;
      let any = 0;
      for (let k = first; k <= first + BEHIND + AHEAD; k++) any |= this.active[(k + HELD) % HELD]!;
      sum += any;
    }
    return smooth(sum / widths);
  }

  /** How much louder the syllable is than the last second. */
  private accent(now: number): number {
    const before = this.meanLoud(now - ACCENT_BEHIND, now - ACCENT_HALF);
    return clamp((this.meanLoud(now - ACCENT_HALF, now + ACCENT_HALF + 1) - before) / ACCENT_DB - 0.3, 0, 1);
  }

  private meanLoud(first: number, end: number): number {
    let sum = 0;
    for (let k = first; k < end; k++) sum += this.loud[(k + HELD) % HELD]!;
    return sum / (end - first);
  }
}
