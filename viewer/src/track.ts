/** A baked motion, and what it says about the person: mean pose, spread, resting face. */

import type { AvatarFile } from "./format";
import { clamp, quatMix, quatMul, quatToRotvec } from "./math";
import type { Pose } from "./rig";

const NECK = 1;

export class Track {
  /** Where it stands, s. */
  time = 0;
  readonly frames: number;
  readonly fps: number;
  readonly meanPlace = new Float32Array(7);
  readonly meanJoints: Float32Array;
  /** Deviation of neck and head from their mean: pitch, yaw, roll of each, rad. */
  readonly spread = new Float32Array(6);
  /** The middle of each expression over the track: a face at rest, where nothing better is known. */
  readonly middle: Float32Array;
  private readonly expr: Float32Array;
  private readonly joints: Float32Array;
  private readonly place: Float32Array;
  /** The file's own expressions, which follow so many mapped ones in a pose. */
  private readonly expressions: number;
  private readonly mapped: number;
  private readonly jointCount: number;

  constructor(file: AvatarFile) {
    this.fps = file.header.fps;
    this.frames = file.shape("track_expr")[0]!;
    this.expressions = file.header.expressions.length;
    this.jointCount = file.header.joints.length;
    this.mapped = file.header.mapped?.length ?? 0;
    const expr = file.values("track_expr");
    this.expr = file.header.arrays["track_expr"]!.step ? expr : expr.map((q) => q / 65535);
    this.joints = file.values("track_joints").map((q) => q / 32767);
    this.place = file.values("track_place");
    this.meanJoints = new Float32Array(this.jointCount * 4);
    this.means();
    this.middle = new Float32Array(this.mapped + this.expressions);
    for (let e = 0; e < this.expressions; e++) {
      const column = Float32Array.from({ length: this.frames }, (_, t) => this.expr[t * this.expressions + e]!).sort();
      this.middle[this.mapped + e] = column[this.frames >> 1]!;
    }
  }

  get seconds(): number {
    return this.frames / this.fps;
  }

  /** The motion at `time`, between frames too; held at its ends. Frame i stands at (i + 1/2) / fps. */
  sample(out: Pose): void {
    const at = clamp(this.time * this.fps - 0.5, 0, this.frames - 1);
    const a = Math.floor(at), b = Math.min(a + 1, this.frames - 1), amount = at - a;
    for (let e = 0, i = a * this.expressions, j = b * this.expressions; e < this.expressions; e++) {
      out.expr[this.mapped + e] = this.expr[i + e]! * (1 - amount) + this.expr[j + e]! * amount;
    }
    out.expr.fill(0, 0, this.mapped);
    const row = this.jointCount * 4;
    for (let k = 0; k < row; k += 4) {
      quatMix(out.joints, k, this.joints, a * row + k, this.joints, b * row + k, amount);
    }
    quatMix(out.place, 0, this.place, a * 7, this.place, b * 7, amount);
    for (let k = 4; k < 7; k++) out.place[k] = this.place[a * 7 + k]! * (1 - amount) + this.place[b * 7 + k]! * amount;
  }

  /** Means of rotations that lie close together: of their quaternions, sign-aligned. */
  private means(): void {
    const row = this.jointCount * 4;
    for (let t = 0; t < this.frames; t++) {
      for (let k = 0; k < row; k += 4) add(this.meanJoints, k, this.joints, t * row + k);
      add(this.meanPlace, 0, this.place, t * 7);
      for (let k = 4; k < 7; k++) this.meanPlace[k]! += this.place[t * 7 + k]! / this.frames;
    }
    for (let k = 0; k < row; k += 4) quatMix(this.meanJoints, k, this.meanJoints, k, this.meanJoints, k, 0);
    quatMix(this.meanPlace, 0, this.meanPlace, 0, this.meanPlace, 0, 0);
    const back = new Float32Array(4), turn = new Float32Array(4), vector = new Float32Array(3);
    for (let joint = 0; joint < 2; joint++) {
      const k = (joint + NECK) * 4;
      back.set([this.meanJoints[k]!, -this.meanJoints[k + 1]!, -this.meanJoints[k + 2]!, -this.meanJoints[k + 3]!]);
      for (let t = 0; t < this.frames; t++) {
        quatMul(turn, 0, back, 0, this.joints, t * row + k);
        quatToRotvec(vector, 0, turn, 0);
        for (let axis = 0; axis < 3; axis++) this.spread[joint * 3 + axis]! += vector[axis]! ** 2 / this.frames;
      }
    }
    for (let i = 0; i < 6; i++) this.spread[i] = Math.sqrt(this.spread[i]!);
  }
}

function add(sum: Float32Array, i: number, q: Float32Array, j: number): void {
  let dot = 0;
  for (let k = 0; k < 4; k++) dot += sum[i + k]! * q[j + k]!;
  for (let k = 0; k < 4; k++) sum[i + k]! += dot < 0 ? -q[j + k]! : q[j + k]!;
}
