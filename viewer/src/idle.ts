/** Blinks, glances and head sway, as gsth/drive/_idle.py: seeded, a function of time. */

import { clamp, gaussian, quatMul, random, rotvecToQuat, smooth } from "./math";
import type { Pose } from "./rig";
import type { Track } from "./track";

const CLOSE_S = 0.09, SHUT_S = 0.04, OPEN_S = 0.16;
const SWAY_HZ = [0.06, 0.45] as const;
const WAVES = 3;
/** Sway where the person's own is smaller: pitch, yaw, roll, standard deviation, rad. */
const SWAY_RAD = [0.02, 0.03, 0.012] as const;
const NECK = 1, HEAD = 2, EYE_L = 3, EYE_R = 4;
const SACCADE_S = 0.03;

export class Idle {
  /** Blinks each minute; 0: none. */
  blinksPerMinute = 17;
  /** Head motion as a fraction of the person's own; 0: still. */
  sway = 0.6;
  private readonly lids: number[];
  private readonly waves: Float64Array;
  private readonly blinkRandom: () => number;
  private readonly glanceRandom: () => number;
  private blinkAt = 0;
  private nextBlink: number;
  private glanceAt = 0;
  private nextGlance = 0;
  private readonly glance = new Float64Array(4);
  private readonly turn = new Float64Array(4);
  /** Now, s; never falls. */
  time = 0;

  constructor(
    expressions: readonly string[],
    private readonly track: Track,
    seed: number,
  ) {
    this.lids = expressions.flatMap((n, i) => (n.startsWith("eyeBlink") ? [i] : []));
    const uniform = random(seed);
    this.blinkRandom = random(seed + 1);
    this.glanceRandom = random(seed + 2);
    // Frequency and phase of each wave of pitch, yaw and roll.
    this.waves = Float64Array.from({ length: WAVES * 3 * 2 }, (_, i) =>
      i % 2 ? 2 * Math.PI * uniform() : SWAY_HZ[0] + (SWAY_HZ[1] - SWAY_HZ[0]) * uniform(),
    );
    this.nextBlink = this.gap();
  }

  /** The person's mean pose, alive; expressions are left alone. */
  body(out: Pose): void {
    out.place.set(this.track.meanPlace);
    out.joints.set(this.track.meanJoints);
    this.turnJoint(NECK, out);
    this.turnJoint(HEAD, out);
  }

  private turnJoint(joint: number, out: Pose): void {
    const share = joint === NECK ? 0.4 : 0.6;
    for (let axis = 0; axis < 3; axis++) {
      let sum = 0;
      for (let k = 0; k < WAVES; k++) {
        const at = (axis * WAVES + k) * 2;
        sum += Math.sin(2 * Math.PI * this.waves[at]! * this.time + this.waves[at + 1]! + joint);
      }
      const own = this.track.spread[(joint - NECK) * 3 + axis]!;
      this.turn[axis] = this.sway * Math.max(own, share * SWAY_RAD[axis]!) * Math.sqrt(2 / WAVES) * sum;
    }
    rotvecToQuat(this.turn, 0, this.turn, 0);
    quatMul(out.joints, joint * 4, this.track.meanJoints, joint * 4, this.turn, 0);
  }

  /** Close the lids where a blink is under way. */
  blink(out: Pose): void {
    if (this.blinksPerMinute === 0) return;
    while (this.time >= this.nextBlink) {
      this.blinkAt = this.nextBlink;
      this.nextBlink += this.gap();
    }
    const t = this.time - this.blinkAt;
    const closed = this.blinkAt > 0 ? smooth(t / CLOSE_S) * (1 - smooth((t - CLOSE_S - SHUT_S) / OPEN_S)) : 0;
    for (let i = 0; i < this.lids.length; i++) {
      const lid = this.lids[i]!;
      out.expr[lid]! += (1 - out.expr[lid]!) * closed;
    }
  }

  /** Small wandering of the gaze: it rests and jumps. */
  wander(out: Pose): void {
    while (this.time >= this.nextGlance) this.jump();
    const arrived = smooth((this.time - this.glanceAt) / SACCADE_S);
    this.turn[0] = this.glance[0]! + (this.glance[2]! - this.glance[0]!) * arrived;
    this.turn[1] = this.glance[1]! + (this.glance[3]! - this.glance[1]!) * arrived;
    this.turn[2] = 0;
    rotvecToQuat(this.turn, 0, this.turn, 0);
    for (let eye = EYE_L; eye <= EYE_R; eye++) quatMul(out.joints, eye * 4, out.joints, eye * 4, this.turn, 0);
  }

  /** Where the gaze goes next, and when. */
  private jump(): void {
    this.glanceAt = this.nextGlance;
    this.nextGlance += 0.5 + 1.9 * this.glanceRandom();
    this.glance[0] = this.glance[2]!;
    this.glance[1] = this.glance[3]!;
    this.glance[2] = clamp(0.01 * gaussian(this.glanceRandom), -0.05, 0.05);
    this.glance[3] = clamp(0.018 * gaussian(this.glanceRandom), -0.08, 0.08);
  }

  private gap(): number {
    const mean = 60 / Math.max(this.blinksPerMinute, 1);
    return Math.max(0.7, mean * Math.exp(-0.18 + 0.6 * gaussian(this.blinkRandom)));
  }
}
