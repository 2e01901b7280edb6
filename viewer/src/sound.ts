/** The page's one AudioContext: what plays, when it is heard, and what a microphone or stream says. */

import { RATE } from "./logmel";
import { Live, Resampler } from "./speech";

/** Pieces that the worklet sends, s. */
const PIECE_S = 0.02;
/** What a stream's picture waits for beyond the voice's own delay: a piece, four columns, messages, a frame. */
const SLACK_S = 0.08;

const WORKLET = `registerProcessor("gsth-tap", class extends AudioWorkletProcessor {
  constructor(options) {
    super();
    this.piece = new Float32Array(options.processorOptions.samples);
    this.filled = 0;
  }
  process([channels]) {
    const count = channels.length ? channels[0].length : 0;
    for (let i = 0; i < count; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i] / channels.length;
      this.piece[this.filled++] = sum;
      if (this.filled === this.piece.length) {
        this.port.postMessage(this.piece);
        this.filled = 0;
      }
    }
    return true;
  }
});`;

export type SoundSource = string | Blob | ArrayBuffer | AudioBuffer;

export class Sound {
  private context: AudioContext | null = null;
  private worklet: Promise<void> | null = null;

  /** The context, running; browsers want this first called in a tap or key press. */
  async running(): Promise<AudioContext> {
    this.context ??= new AudioContext({ latencyHint: "interactive" });
    if (this.context.state !== "running") await this.context.resume();
    return this.context;
  }

  /** Decode for hearing (the buffer) and for the voice (16 kHz mono). */
  async decode(source: SoundSource): Promise<{ buffer: AudioBuffer; samples: Float32Array }> {
    if (source instanceof AudioBuffer) return { buffer: source, samples: await mono16k(source) };
    const bytes = await bytesOf(source);
    const buffer = await (await this.running()).decodeAudioData(bytes);
    return { buffer, samples: await mono16k(buffer) };
  }

  /** Play from the start. */
  async play(buffer: AudioBuffer): Promise<Playback> {
    return new Playback(await this.running(), buffer);
  }

  /** Hear a stream into `live`; where it is audible, its sound is held back until the picture is ready. */
  async tap(stream: MediaStream, live: Live, delaySteps: number, audible: boolean): Promise<Tap> {
    const context = await this.running();
    this.worklet ??= loadWorklet(context);
    await this.worklet;
    return new Tap(context, stream, live, delaySteps, audible);
  }

  async close(): Promise<void> {
    await this.context?.close();
    this.context = null;
  }
}

/** A clock that is what the listener hears now, s. */
export interface Clock {
  readonly time: number;
  readonly ended: boolean;
  stop(): void;
}

export class Playback implements Clock {
  ended = false;
  private readonly node: AudioBufferSourceNode;
  private readonly start: number;

  constructor(
    private readonly context: AudioContext,
    buffer: AudioBuffer,
  ) {
    this.node = new AudioBufferSourceNode(context, { buffer });
    this.node.connect(context.destination);
    this.node.onended = () => (this.ended = true);
    this.start = context.currentTime + 0.02;
    this.node.start(this.start);
  }

  get time(): number {
    const latency = this.context.outputLatency || this.context.baseLatency || 0;
    return Math.max(0, this.context.currentTime - this.start - latency);
  }

  stop(): void {
    this.ended = true;
    this.node.stop();
    this.node.disconnect();
  }
}

/** A stream being heard; its clock runs evenly although its pieces come in bursts. */
export class Tap implements Clock {
  ended = false;
  private readonly nodes: AudioNode[];
  private readonly delay: number;
  private offset = Number.NaN;
  /** Chromium gives a remote stream's sound to nobody until some element plays it, silently. */
  private readonly pump: HTMLAudioElement | null = null;

  constructor(
    private readonly context: AudioContext,
    private readonly stream: MediaStream,
    private readonly live: Live,
    delaySteps: number,
    private readonly audible: boolean,
  ) {
    this.delay = delaySteps / 50 + SLACK_S;
    const source = context.createMediaStreamSource(stream);
    const samples = Math.round(context.sampleRate * PIECE_S);
    const node = new AudioWorkletNode(context, "gsth-tap", { numberOfOutputs: 0, processorOptions: { samples } });
    const resampler = new Resampler(context.sampleRate, RATE);
    node.port.onmessage = ({ data }: MessageEvent<Float32Array>) => {
      const count = resampler.push(data);
      live.push(resampler.out, count);
    };
    source.connect(node);
    this.nodes = [source, node];
    if (audible) {
      const wait = new DelayNode(context, { delayTime: this.delay, maxDelayTime: 1 });
      source.connect(wait).connect(context.destination);
      this.nodes.push(wait);
      this.pump = Object.assign(new Audio(), { muted: true, srcObject: stream });
      void this.pump.play().catch(() => undefined); // cut short where the stream is left at once
    }
    stream.getAudioTracks()[0]?.addEventListener("ended", () => (this.ended = true));
  }

  get time(): number {
    // Known curves lag by the voice's delay; the rest of the wait covers bursts. The offset follows slowly.
    const now = this.context.currentTime, wanted = this.live.known - SLACK_S / 2 - now;
    if (Number.isNaN(this.offset) || Math.abs(wanted - this.offset) > 0.2) this.offset = wanted;
    this.offset += 0.02 * (wanted - this.offset);
    return Math.max(0, now + this.offset);
  }

  stop(): void {
    this.ended = true;
    for (const node of this.nodes) node.disconnect();
    if (this.pump) this.pump.srcObject = null;
  }

  /** Switch the microphone itself off; a stream that is heard belongs to the page, which may go on with it. */
  release(): void {
    if (this.audible) return;
    for (const track of this.stream.getTracks()) track.stop();
  }
}

async function loadWorklet(context: AudioContext): Promise<void> {
  const url = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
  try {
    await context.audioWorklet.addModule(url);
  } finally {
    URL.revokeObjectURL(url);
  }
}

async function bytesOf(source: string | Blob | ArrayBuffer): Promise<ArrayBuffer> {
  if (source instanceof ArrayBuffer) return source;
  if (source instanceof Blob) return source.arrayBuffer();
  const answer = await fetch(source);
  if (!answer.ok) throw new Error(`${source}: ${answer.status} ${answer.statusText}`);
  return answer.arrayBuffer();
}

async function mono16k(buffer: AudioBuffer): Promise<Float32Array> {
  const length = Math.max(1, Math.round(buffer.duration * RATE));
  const offline = new OfflineAudioContext(1, length, RATE);
  const node = new AudioBufferSourceNode(offline, { buffer });
  node.connect(offline.destination);
  node.start();
  return (await offline.startRendering()).getChannelData(0);
}
