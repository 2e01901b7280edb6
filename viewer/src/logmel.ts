/** Sound to features, as gsth/audio.py defines them: 64 log-mel bands at 100 Hz, the level of the speech taken out. */

export const RATE = 16000;
export const HOP = 160;
export const WINDOW = 400;
export const BANDS = 64;
export const COLUMNS_HZ = RATE / HOP;
/** Samples that a column hears before and after its own 10 ms. */
export const MARGIN = (WINDOW - HOP) / 2;
const FFT = 512;
const LOW_HZ = 60, HIGH_HZ = 7600;
const PRE_EMPHASIS = 0.97;
const FLOOR = 1e-5;
const CENTRE = -5, SPREAD = 3;
/** Sound that never rises above this is silence. */
export const SILENT_DB = -65;
const GATE_DB = 22;
/** Every feature in digital silence. */
export const FLOOR_FEATURE = (Math.log(FLOOR) - CENTRE) / SPREAD;

/** Mel power of one 25 ms window. */
export class MelColumn {
  /** Triangles on the mel scale, each with its first bin. */
  private readonly filters: { first: number; weights: Float64Array }[] = [];
  private readonly hann = Float64Array.from({ length: WINDOW }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / WINDOW));
  private readonly re = new Float64Array(FFT);
  private readonly im = new Float64Array(FFT);
  private readonly power = new Float64Array(FFT / 2 + 1);
  private readonly cos = Float64Array.from({ length: FFT / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / FFT));
  private readonly sin = Float64Array.from({ length: FFT / 2 }, (_, i) => Math.sin((2 * Math.PI * i) / FFT));

  constructor() {
    const mel = (hz: number) => 2595 * Math.log10(1 + hz / 700);
    const low = mel(LOW_HZ), high = mel(HIGH_HZ);
    const edge = (i: number) => 700 * (10 ** ((low + ((high - low) * i) / (BANDS + 1)) / 2595) - 1);
    for (let band = 0; band < BANDS; band++) {
      const [a, b, c] = [edge(band), edge(band + 1), edge(band + 2)];
      const full = Float64Array.from({ length: FFT / 2 + 1 }, (_, k) => {
        const hz = (k * RATE) / FFT;
        return Math.max(0, Math.min((hz - a) / (b - a), (c - hz) / (c - b)));
      });
      const sum = Math.max(full.reduce((x, y) => x + y, 0), 1e-9);
      // Windows are normalised by their energy, so that a column's sum over frequency is a mean square.
      const weights = full.map((w, k) => {
        const tilt = 1 + PRE_EMPHASIS ** 2 - 2 * PRE_EMPHASIS * Math.cos((2 * Math.PI * k) / FFT);
        return ((w / sum) * tilt) / (0.375 * WINDOW);
      });
      const first = Math.max(0, weights.findIndex((w) => w > 0));
      let end = first;
      while (end < weights.length && weights[end]! > 0) end++;
      this.filters.push({ first, weights: weights.slice(first, end) });
    }
  }

  /** Power of each band, of the window that begins at `start`; samples beyond either end are 0. */
  measure(samples: Float32Array, start: number, out: Float32Array, at = 0): void {
    const { re, im, power } = this;
    re.fill(0);
    im.fill(0);
    // Within the array: a read beyond its ends would make the engine box every sample.
    const first = Math.max(0, -start), end = Math.min(WINDOW, samples.length - start);
    for (let i = first; i < end; i++) re[i] = samples[start + i]! * this.hann[i]!;
    this.transform();
    for (let k = 0; k <= FFT / 2; k++) power[k] = re[k]! ** 2 + im[k]! ** 2;
    for (let band = 0; band < BANDS; band++) {
      const { first, weights } = this.filters[band]!;
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k]! * power[first + k]!;
      out[at + band] = sum;
    }
  }

  /** In-place radix-2 FFT of re + i im. */
  private transform(): void {
    const { re, im } = this;
    for (let i = 1, j = 0; i < FFT; i++) {
      let bit = FFT >> 1;
      for (; j & bit; bit >>= 1) j ^= bit;
      j ^= bit;
      if (i < j) {
        const t = re[i]!;
        re[i] = re[j]!;
        re[j] = t; // im is all zero before the first pass
      }
    }
    for (let half = 1; half < FFT; half *= 2) {
      const stride = FFT / (2 * half);
      for (let i = 0; i < FFT; i += 2 * half) {
        for (let k = 0; k < half; k++) {
          const c = this.cos[k * stride]!, s = -this.sin[k * stride]!;
          const a = i + k, b = a + half;
          const x = re[b]! * c - im[b]! * s, y = re[b]! * s + im[b]! * c;
          re[b] = re[a]! - x;
          im[b] = im[a]! - y;
          re[a]! += x;
          im[a]! += y;
        }
      }
    }
  }
}

/** Mel power to a feature, relative to the speech level in dB. */
export function feature(power: number, levelDb: number): number {
  return Number.isFinite(levelDb) ? (Math.log(power * 10 ** (-levelDb / 10) + FLOOR) - CENTRE) / SPREAD : FLOOR_FEATURE;
}

/** Features [columns 64] of a whole sound, mono 16 kHz. */
export function logMel(samples: Float32Array): Float32Array {
  const column = new MelColumn(), level = speechLevel(samples);
  const count = Math.ceil(samples.length / HOP);
  const out = new Float32Array(count * BANDS);
  for (let c = 0; c < count; c++) column.measure(samples, c * HOP - MARGIN, out, c * BANDS);
  return out.map((power) => feature(power, level));
}

/** Level of the speech, dB of full scale, pauses left out; -Infinity for silence. */
export function speechLevel(samples: Float32Array): number {
  return gatedLevel(loudness(samples));
}

/** Level of each whole 10 ms, smoothed over three, dB of full scale. */
function loudness(samples: Float32Array): Float32Array {
  const count = Math.floor(samples.length / HOP);
  const power = new Float64Array(count);
  for (let c = 0; c < count; c++) {
    for (let i = c * HOP; i < (c + 1) * HOP; i++) power[c]! += samples[i]! ** 2 / HOP;
  }
  return Float32Array.from(power, (_, c) => {
    const low = Math.max(0, c - 1), high = Math.min(count - 1, c + 1);
    let sum = 0;
    for (let k = low; k <= high; k++) sum += power[k]!;
    return 10 * Math.log10(sum / (high - low + 1) + 1e-12);
  });
}

/** Level of the columns within 22 dB of the loudest 100 ms. */
function gatedLevel(db: Float32Array): number {
  const loud = loudest(db);
  if (loud < SILENT_DB) return -Infinity;
  let sum = 0, count = 0;
  for (const x of db) {
    if (x <= loud - GATE_DB) continue;
    sum += 10 ** (x / 10);
    count++;
  }
  return count ? 10 * Math.log10(sum / count) : -Infinity;
}

function loudest(db: Float32Array): number {
  if (db.length === 0) return -Infinity;
  const width = Math.min(10, db.length);
  let sum = 0, best = 0;
  for (let i = 0; i < db.length; i++) {
    sum += 10 ** (db[i]! / 10);
    if (i >= width) sum -= 10 ** (db[i - width]! / 10);
    if (i >= width - 1) best = Math.max(best, sum);
  }
  return 10 * Math.log10(best / width);
}
