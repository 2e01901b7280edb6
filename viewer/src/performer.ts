/** What the head does now: a track, speech on an idle body, or idling; on top what the page asks for, and the gaze. */

import { Idle } from "./idle";
import { clamp, quatMix, quatMul, rotvecToQuat } from "./math";
import type { Pose, Rig } from "./rig";
import type { Clock } from "./sound";
import type { Speech } from "./speech";
import type { Track } from "./track";
import type { Voice } from "./voice";

const FADE_S = 0.25;
const HEAD = 2, EYE_L = 3, EYE_R = 4;
const MAX_EYE_RAD = 0.45;
const MAX_HEAD_RAD = 0.5;
/** Of a target's direction, what the head takes over; the eyes do the rest. */
const HEAD_SHARE = 0.35;
const EYE_SPEED = 14;
const HEAD_SPEED = 2.5;
/** How far a fully accented syllable raises the brows, and lowers the head, rad (gsth/drive/_speaking.py). */
const BROWS: Readonly<Record<string, number>> = { browInnerUp: 0.22, browOuterUpLeft: 0.16, browOuterUpRight: 0.16 };
const NOD_RAD = 0.028;

export class Performer {
  /** This frame. */
  readonly pose: Pose;
  readonly idle: Idle;
  /** Blinks, glances and sway; off, the head does only what it is told. */
  alive = true;
  /** For `perform`: now, and how much later than at the last call, s. */
  time = 0;
  dt = 0;
  private trackOn = false;
  private trackShare = 0;
  private speechShare = 0;
  private speech: Speech | null = null;
  private clock: Clock | null = null;
  private readonly base: Pose;
  private readonly held: Float32Array;
  /** By expression: how far an accent raises it. */
  private readonly lift: Float32Array;
  private readonly target = new Float32Array(3);
  private looking = 0;
  private lookAmount = 0;
  /** Yaw and pitch of head and eyes towards the target, rad. */
  private readonly headTurn = new Float32Array(2);
  private readonly eyeTurn = new Float32Array(4);
  private readonly quat = new Float32Array(4);

  constructor(
    private readonly rig: Rig,
    private readonly track: Track,
    private readonly voice: Voice,
    seed: number,
  ) {
    this.pose = emptyPose(rig);
    this.base = emptyPose(rig);
    this.held = new Float32Array(rig.expressions.length).fill(Number.NaN);
    this.lift = Float32Array.from(rig.expressions, (name) => BROWS[name] ?? 0);
    this.idle = new Idle(rig.expressions, track, seed);
  }

  /** Show the track where it stands; or leave it for an idle body. */
  setTrack(on: boolean): void {
    this.trackOn = on;
  }

  /** The mouth says this, by this clock; null: silence. */
  setSpeech(speech: Speech | null, clock: Clock | null): void {
    if (speech === null) this.clock?.stop();
    else this.speech = speech;
    this.clock = clock;
  }

  get speaking(): boolean {
    return this.clock !== null && !this.clock.ended;
  }

  /** Hold an expression at a value; NaN gives it back. */
  hold(expression: number, value: number): void {
    this.held[expression] = value;
  }

  /** Look at a point of the avatar's frame, or nowhere in particular. */
  lookAt(point: ArrayLike<number> | null): void {
    this.looking = point === null ? 0 : 1;
    if (point !== null) this.target.set(point);
  }

  /** Make `pose` for `time`. */
  perform(): void {
    const { pose, base, idle } = this;
    const step = this.dt / FADE_S;
    this.trackShare = approach(this.trackShare, this.trackOn ? 1 : 0, step);
    this.speechShare = approach(this.speechShare, this.speaking ? 1 : 0, step);
    idle.time = this.alive ? this.time : 0;
    if (this.trackShare < 1) {
      pose.expr.set(this.voice.rest);
      idle.body(pose);
    }
    if (this.trackShare > 0) {
      this.track.sample(base);
      if (this.trackShare < 1) mix(pose, base, this.trackShare);
      else copy(pose, base);
    }
    if (this.speech !== null && this.clock !== null) this.speak(pose);
    if (this.alive) {
      if (!this.trackOn) idle.blink(pose);
      if (this.trackShare < 1) idle.wander(pose);
    }
    for (let e = 0; e < this.held.length; e++) {
      const value = this.held[e]!;
      if (value === value) pose.expr[e] = value; // not NaN; Number.isNaN would box each number
    }
    this.lookAmount = approach(this.lookAmount, this.lookWanted(), step);
    if (this.lookAmount > 0) this.gaze();
  }

  /** Without fading: as if everything had long been so. */
  settle(): void {
    this.trackShare = this.trackOn ? 1 : 0;
    this.lookAmount = this.lookWanted();
    this.speechShare = this.speaking ? 1 : 0;
  }

  /** A track brings its own gaze. */
  private lookWanted(): number {
    return this.trackOn ? 0 : this.looking;
  }

  private speak(pose: Pose): void {
    const clock = this.clock!, speech = this.speech!;
    speech.time = clock.time;
    speech.follow();
    this.base.expr.set(pose.expr);
    if (this.speechShare > 0 && speech.sample(this.base.expr)) {
      for (let i = 0; i < this.voice.moved.length; i++) {
        const e = this.voice.moved[i]!;
        pose.expr[e]! += (this.base.expr[e]! - pose.expr[e]!) * this.speechShare;
      }
      if (this.alive) this.accent(speech);
    }
  }

  /** Louder syllables raise the brows and lower the head. */
  private accent(speech: Speech): void {
    const { pose, lift, quat } = this, amount = speech.accent * this.speechShare * (1 - this.trackShare);
    for (let e = 0; e < lift.length; e++) pose.expr[e] = Math.min(1, pose.expr[e]! + lift[e]! * amount);
    quat[0] = NOD_RAD * this.idle.sway * amount;
    quat[1] = quat[2] = 0;
    rotvecToQuat(quat, 0, quat, 0);
    quatMul(pose.joints, HEAD * 4, pose.joints, HEAD * 4, quat, 0);
  }

  /** Turn head and eyes to the target (a face looks along -z of its joints, y is down). */
  private gaze(): void {
    const { pose, rig, headTurn, eyeTurn, quat } = this;
    const headSpeed = 1 - Math.exp(-HEAD_SPEED * this.dt), eyeSpeed = 1 - Math.exp(-EYE_SPEED * this.dt);
    this.toward(rig.jointRotations[HEAD]!, rig.jointPlaces[HEAD]!, quat);
    // The rotation of the last frame holds the turn that was given then; add to it what is missing.
    for (let k = 0; k < 2; k++) {
      const wanted = clamp(HEAD_SHARE * (headTurn[k]! + quat[k]!), -MAX_HEAD_RAD, MAX_HEAD_RAD);
      headTurn[k]! += headSpeed * (wanted - headTurn[k]!);
    }
    quat[0] = headTurn[0]! * this.lookAmount;
    quat[1] = headTurn[1]! * this.lookAmount;
    yawPitch(quat);
    quatMul(pose.joints, HEAD * 4, pose.joints, HEAD * 4, quat, 0);
    for (let eye = EYE_L; eye <= EYE_R; eye++) {
      const at = (eye - EYE_L) * 2;
      this.toward(rig.jointRotations[HEAD]!, rig.jointPlaces[eye]!, quat);
      for (let k = 0; k < 2; k++) {
        const wanted = clamp(quat[k]!, -MAX_EYE_RAD, MAX_EYE_RAD);
        eyeTurn[at + k]! += eyeSpeed * (wanted - eyeTurn[at + k]!);
      }
      quat[0] = eyeTurn[at]!;
      quat[1] = eyeTurn[at + 1]!;
      yawPitch(quat);
      quatMix(pose.joints, eye * 4, pose.joints, eye * 4, quat, 0, this.lookAmount);
    }
  }

  /** Yaw and pitch, in a joint's axes, from its place to the target. */
  private toward(rotation: Float32Array, place: Float32Array, out: Float32Array): void {
    const { target } = this;
    const dx = target[0]! - place[0]!, dy = target[1]! - place[1]!, dz = target[2]! - place[2]!;
    const x = rotation[0]! * dx + rotation[3]! * dy + rotation[6]! * dz;
    const y = rotation[1]! * dx + rotation[4]! * dy + rotation[7]! * dz;
    const z = rotation[2]! * dx + rotation[5]! * dy + rotation[8]! * dz;
    out[0] = Math.atan2(-x, -z);
    out[1] = Math.atan2(y, Math.sqrt(x * x + z * z));
  }
}

const half = new Float32Array(8);

/** Yaw and pitch in q become the rotation by that yaw, then by that pitch in the turned axes. */
function yawPitch(q: Float32Array): void {
  half[0] = half[2] = half[5] = half[6] = 0;
  half[1] = q[0]!;
  half[4] = q[1]!;
  rotvecToQuat(half, 0, half, 0);
  rotvecToQuat(half, 4, half, 4);
  quatMul(q, 0, half, 0, half, 4);
}

function emptyPose(rig: Rig): Pose {
  const joints = new Float32Array(rig.jointPlaces.length * 4);
  for (let j = 0; j < joints.length; j += 4) joints[j] = 1;
  return { expr: new Float32Array(rig.expressions.length), joints, place: new Float32Array([1, 0, 0, 0, 0, 0, 0]) };
}

function approach(value: number, target: number, step: number): number {
  return value + clamp(target - value, -step, step);
}

function copy(to: Pose, from: Pose): void {
  to.expr.set(from.expr);
  to.joints.set(from.joints);
  to.place.set(from.place);
}

/** Move `a` towards `b`. */
function mix(a: Pose, b: Pose, amount: number): void {
  for (let e = 0; e < a.expr.length; e++) a.expr[e]! += (b.expr[e]! - a.expr[e]!) * amount;
  for (let k = 0; k < a.joints.length; k += 4) quatMix(a.joints, k, a.joints, k, b.joints, k, amount);
  quatMix(a.place, 0, a.place, 0, b.place, 0, amount);
  for (let k = 4; k < 7; k++) a.place[k]! += (b.place[k]! - a.place[k]!) * amount;
}
