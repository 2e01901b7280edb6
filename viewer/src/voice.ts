/** What turns features of sound into mouth curves at 50 Hz: the person's own network, else a rule about loudness. */

import kernelBytes from "../build/kernels.wasm";
import type { AvatarFile } from "./format";
import { Arena, compiled, type Kernels, PlainKernels } from "./kernels";
import { BANDS, FLOOR_FEATURE } from "./logmel";
import { clamp, smooth } from "./math";

export const STEPS_HZ = 50;
const WARM_UP_STEPS = 25;
/** Of voices that need no look-ahead themselves: whether speech begins must be known before it does. */
const DELAY = 8;

/** Hears 20 ms at a time. */
export interface Voice {
  /** A step comes out this many steps after its sound went in. */
  readonly delay: number;
  /** Which expressions it moves; `rest` is the whole face in silence. */
  readonly moved: readonly number[];
  readonly rest: Float32Array;
  /** Forget what was heard. */
  reset(): void;
  /** Hear two columns of features at `at`; offsets from rest of the step `delay` ago go to `out`. */
  step(features: Float32Array, at: number, out: Float32Array, outAt: number): void;
}

interface VoiceHeader {
  dilations: number[];
  delay: number;
  press: number;
  full_press: number;
  /** Share of it from which the lips begin to meet, and at which they have met. */
  closure: [number, number];
}

/** The voice that a file brings, or the rule where it has none. */
export async function voiceOf(file: AvatarFile, middle: Float32Array, simd = true): Promise<Voice> {
  return file.has("voice/weight") ? await NetVoice.make(file, simd) : new LoudnessVoice(file.expressions, middle);
}

interface Block {
  normWeight: Float32Array;
  normBias: Float32Array;
  conv: Dense;
  mix: Dense;
  dilation: number;
  /** The last 2 * dilation normed inputs, a ring. */
  history: Float32Array;
}

interface Dense {
  weight: number;
  bias: number;
  rows: number;
  cols: number;
}

/** The network of gsth/drive/_speech_net.py with the person's last layer, one step at a time. */
export class NetVoice implements Voice {
  readonly delay: number;
  readonly moved: readonly number[];
  readonly rest: Float32Array;
  /** The hidden state of the last step. */
  readonly hidden: Float32Array;
  private kernels!: Kernels;
  private f32!: Float32Array;
  private readonly width: number;
  private readonly closed: Float32Array;
  private readonly press: number;
  private readonly fullPress: number;
  private readonly closure: readonly [number, number];
  private readonly stem: Dense;
  private readonly last: Dense;
  private readonly curves: Dense;
  private readonly blocks: Block[];
  private readonly normWeight: Float32Array;
  private readonly normBias: Float32Array;
  private readonly columns = new Float32Array(6 * BANDS);
  private readonly state: Float32Array;
  private readonly normed: Float32Array;
  private readonly input: number;
  private readonly output: number;
  private count = 0;

  private constructor(file: AvatarFile, arena: Arena, fills: [number, Float32Array][]) {
    const header = (file.header as unknown as { voice: VoiceHeader }).voice;
    this.delay = header.delay;
    this.press = header.press;
    this.fullPress = header.full_press;
    this.closure = header.closure;
    this.moved = Array.from(file.raw("voice/moved"));
    this.rest = new Float32Array(file.expressions.length);
    this.rest.set(file.values("voice/rest"));
    this.closed = file.values("voice/closed");
    const dense = (weight: string, bias: string): Dense => {
      const [rows, cols] = file.shape(weight) as [number, number];
      const made = { weight: arena.take(rows * cols * 4), bias: arena.take(rows * 4), rows, cols };
      fills.push([made.weight, file.values(weight)], [made.bias, file.values(bias)]);
      return made;
    };
    const linear = (name: string) => dense(`voice/${name}.weight`, `voice/${name}.bias`);
    this.stem = linear("net.stem.linear");
    this.width = this.stem.rows;
    this.blocks = header.dilations.map((dilation, i) => ({
      normWeight: file.values(`voice/net.blocks.${i}.norm.weight`),
      normBias: file.values(`voice/net.blocks.${i}.norm.bias`),
      conv: linear(`net.blocks.${i}.conv.linear`),
      mix: linear(`net.blocks.${i}.mix`),
      dilation,
      history: new Float32Array(2 * dilation * this.width),
    }));
    this.normWeight = file.values("voice/net.norm.weight");
    this.normBias = file.values("voice/net.norm.bias");
    this.curves = linear("net.head");
    this.last = dense("voice/weight", "voice/bias");
    this.state = new Float32Array(this.width);
    this.normed = new Float32Array(this.width);
    this.hidden = new Float32Array(this.width);
    this.input = arena.take(Math.max(this.stem.cols, 3 * this.width) * 4);
    this.output = arena.take(Math.max(this.width, this.curves.rows, this.last.rows) * 4);
  }

  static async make(file: AvatarFile, simd = true): Promise<NetVoice> {
    const arena = new Arena();
    const fills: [number, Float32Array][] = [];
    const voice = new NetVoice(file, arena, fills);
    const memory = arena.memory();
    voice.f32 = new Float32Array(memory.buffer);
    for (const [at, values] of fills) voice.f32.set(values, at >> 2);
    voice.kernels = (simd ? await compiled(kernelBytes, memory) : null) ?? new PlainKernels(memory.buffer as ArrayBuffer);
    voice.reset();
    return voice;
  }

  reset(): void {
    this.columns.fill(0);
    this.count = 0;
    for (const block of this.blocks) block.history.fill(0);
    const silence = new Float32Array(2 * BANDS).fill(FLOOR_FEATURE);
    const out = new Float32Array(this.last.rows);
    for (let i = 0; i < WARM_UP_STEPS; i++) this.step(silence, 0, out, 0);
  }

  step(features: Float32Array, at: number, out: Float32Array, outAt: number): void {
    const { columns, state, hidden, f32, width } = this;
    const input = this.input >> 2, output = this.output >> 2;
    columns.copyWithin(0, 2 * BANDS);
    for (let i = 0; i < 2 * BANDS; i++) columns[4 * BANDS + i] = features[at + i]!;
    f32.set(columns, input);
    this.apply(this.stem);
    for (let i = 0; i < width; i++) state[i] = f32[output + i]!;
    for (let b = 0; b < this.blocks.length; b++) this.residual(this.blocks[b]!);
    norm(state, this.normWeight, this.normBias, hidden);
    this.count++;
    f32.set(hidden, input);
    this.apply(this.curves);
    const pressed = f32[output + this.press]! / this.fullPress;
    const shut = smooth((pressed - this.closure[0]) / (this.closure[1] - this.closure[0]));
    this.apply(this.last);
    for (let i = 0; i < this.last.rows; i++) {
      const offset = f32[output + i]!;
      out[outAt + i] = offset + (this.closed[i]! - offset) * shut;
    }
  }

  private residual(block: Block): void {
    const { state, normed, f32, width } = this;
    const input = this.input >> 2, output = this.output >> 2, ring = 2 * block.dilation;
    norm(state, block.normWeight, block.normBias, normed);
    const now = (this.count % ring) * width, half = ((this.count + block.dilation) % ring) * width;
    for (let i = 0; i < width; i++) {
      f32[input + i] = block.history[now + i]!; // 2 dilations ago; overwritten below
      f32[input + width + i] = block.history[half + i]!;
      f32[input + 2 * width + i] = normed[i]!;
      block.history[now + i] = normed[i]!;
    }
    this.apply(block.conv);
    for (let i = 0; i < width; i++) f32[input + i] = gelu(f32[output + i]!);
    this.apply(block.mix);
    for (let i = 0; i < width; i++) state[i]! += f32[output + i]!;
  }

  private apply(d: Dense): void {
    this.kernels.dense(d.weight, d.bias, this.input, this.output, d.rows, d.cols);
  }
}

function norm(x: Float32Array, weight: Float32Array, bias: Float32Array, out: Float32Array): void {
  let mean = 0, square = 0;
  for (let i = 0; i < x.length; i++) mean += x[i]! / x.length;
  for (let i = 0; i < x.length; i++) square += (x[i]! - mean) ** 2 / x.length;
  const scale = 1 / Math.sqrt(square + 1e-5);
  for (let i = 0; i < x.length; i++) out[i] = (x[i]! - mean) * scale * weight[i]! + bias[i]!;
}

/** x times the normal distribution up to x; erf after Abramowitz and Stegun 7.1.26, error under 2e-7. */
function gelu(x: number): number {
  const z = Math.abs(x) / Math.SQRT2, t = 1 / (1 + 0.3275911 * z);
  const poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const erf = 1 - poly * Math.exp(-z * z);
  return 0.5 * x * (1 + (x < 0 ? -erf : erf));
}

/** Louder opens the jaw; low sounds round the lips, high ones spread them. For avatars that learned no voice. */
export class LoudnessVoice implements Voice {
  readonly delay = DELAY;
  readonly moved: readonly number[];
  private readonly gains: readonly (readonly [open: number, round: number, spread: number])[];
  private open = 0;
  private tone = 0;
  /** Openings and tones of the last steps, a ring. */
  private readonly held = new Float32Array(2 * DELAY);
  private count = 0;

  constructor(
    expressions: readonly string[],
    readonly rest: Float32Array,
  ) {
    const wanted: Record<string, readonly [number, number, number]> = {
      jawOpen: [0.5, 0, 0],
      mouthFunnel: [0, 0.5, 0],
      mouthPucker: [0, 0.3, 0],
      mouthStretchLeft: [0, 0, 0.4],
      mouthStretchRight: [0, 0, 0.4],
      mouthLowerDownLeft: [0.25, 0, 0.2],
      mouthLowerDownRight: [0.25, 0, 0.2],
    };
    this.moved = expressions.flatMap((name, i) => (name in wanted ? [i] : []));
    this.gains = this.moved.map((i) => wanted[expressions[i]!]!);
  }

  reset(): void {
    this.open = this.tone = 0;
    this.held.fill(0);
  }

  step(features: Float32Array, at: number, out: Float32Array, outAt: number): void {
    let low = 0, high = 0;
    for (let k = 0; k < 2 * BANDS; k++) {
      if (k % BANDS < BANDS / 2) low += features[at + k]! / BANDS;
      else high += features[at + k]! / BANDS;
    }
    // The loudest vowels stand near 1, silence at FLOOR_FEATURE; hissing is high only and keeps the jaw up.
    this.open += 0.5 * (smooth((low + 0.6) / 1.6) - this.open);
    this.tone += 0.3 * (clamp(high - low + 0.6, -1, 1) - this.tone);
    const slot = (this.count++ % DELAY) * 2, then = this.held[slot]!, tone = this.held[slot + 1]!;
    this.held[slot] = this.open;
    this.held[slot + 1] = this.tone;
    for (let i = 0; i < this.gains.length; i++) {
      const [open, round, spread] = this.gains[i]!;
      out[outAt + i] = then * (open + round * Math.max(0, -tone) + spread * Math.max(0, tone));
    }
  }
}
