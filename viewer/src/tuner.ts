/** Trades looks for speed, a step at a time, by the times between frames. */

export interface Level {
  /** Deviations of a splat that are drawn. */
  deviations: number;
  /** Skin turned away by more than this cosine is left out; above 1: none. */
  cullCosine: number;
  /** Sort at every so many frames. */
  sortEvery: number;
  /** Pixels drawn for each pixel shown, per axis; a headset's are fixed when its session begins. */
  pixels: number;
}

export const LEVELS: readonly Level[] = [
  { deviations: 4, cullCosine: 2, sortEvery: 1, pixels: 1 },
  { deviations: 2.6, cullCosine: 0.5, sortEvery: 1, pixels: 1 },
  { deviations: Math.sqrt(5), cullCosine: 0.3, sortEvery: 2, pixels: 1 },
  { deviations: 2, cullCosine: 0.3, sortEvery: 2, pixels: 0.75 },
  { deviations: 2, cullCosine: 0.3, sortEvery: 3, pixels: 0.5 },
];

const WINDOW_FRAMES = 45;
const SLOW = 1.25, FAST = 1.06;
/** After a step down, a step up is not tried for this many windows; each failed try doubles it. */
const PATIENCE = 6;

export class Tuner {
  level = 0;
  enabled = true;
  private frames = 0;
  private sum = 0;
  private calm = 0;
  private patience = PATIENCE;
  private tried = false;

  /** Called when the level changes. */
  constructor(private readonly changed: (level: Level) => void) {}

  get current(): Level {
    return LEVELS[this.level]!;
  }

  /** One frame took `ms` where `wantedMs` was the display's interval. */
  frame(ms: number, wantedMs: number): void {
    if (!this.enabled || ms > 500) return; // a hidden tab or a breakpoint, not slowness
    this.sum += ms;
    if (++this.frames < WINDOW_FRAMES) return;
    const ratio = this.sum / this.frames / wantedMs;
    this.frames = this.sum = 0;
    if (ratio > SLOW && this.level < LEVELS.length - 1) {
      if (this.tried) this.patience *= 2;
      this.tried = false;
      this.calm = 0;
      this.set(this.level + 1);
    } else if (ratio < FAST && this.level > 0 && ++this.calm >= this.patience) {
      this.tried = true;
      this.calm = 0;
      this.set(this.level - 1);
    }
  }

  set(level: number): void {
    this.level = level;
    this.changed(this.current);
  }
}
