/** An avatar in a page: loads it, runs it, and is what the page talks to. */

import { Color, Group, Matrix4, type Object3D, PerspectiveCamera, Scene, Vector3, WebGLRenderer } from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { AvatarFile } from "./format";
import { clamp } from "./math";
import { Performer } from "./performer";
import { Rig, type SortView } from "./rig";
import { type Playback, Sound, type SoundSource, type Tap } from "./sound";
import { Live, Recording } from "./speech";
import { FLIP, SplatMesh, ToAvatar } from "./splats";
import { Track } from "./track";
import { type Level, Tuner } from "./tuner";
import { type Voice, voiceOf } from "./voice";
import { Headset } from "./xr";

export interface Options {
  /** Colour behind the avatar, as in CSS; "transparent" lets the page through. */
  background?: string;
  /** Of blinks, glances and sway. */
  seed?: number;
  /** Trade looks for speed where frames are late. */
  autoTune?: boolean;
  /** Use compiled kernels where the browser can. */
  simd?: boolean;
}

export interface Stats {
  fps: number;
  splats: number;
  drawn: number;
  rigMs: number;
  sortMs: number;
  level: number;
  simd: boolean;
}

const NEAR_M = 0.02, FAR_M = 50;
const HEAD = 2;
const SMOOTHING = 0.05;
/** Rig and sort are timed at every so many frames (reading the clock makes garbage), which meets frames with a sort. */
const TIMED_EVERY = 7;

/**
 * Events: speechstart, speechend, xrstart, xrend, and error (an ErrorEvent: sound that cannot be read, no headset).
 * World axes are three's: y up, metres; the avatar faces +z.
 */
export class Player extends EventTarget {
  readonly stats: Stats;
  readonly expressions: readonly string[];
  readonly renderer: WebGLRenderer;
  readonly scene = new Scene();
  readonly camera = new PerspectiveCamera();
  /** Holds the avatar; moving it moves the avatar in the world. */
  readonly stage = new Group();
  readonly headset: Headset;
  /** What the controls move: it looks at the head. The camera is fixed to it, and began as the filming camera. */
  private readonly handle = new PerspectiveCamera();
  private readonly toCamera = new Matrix4();
  private readonly controls: OrbitControls;
  private readonly performer: Performer;
  private readonly splats: SplatMesh;
  private readonly sound = new Sound();
  private readonly tuner: Tuner;
  private readonly resized: ResizeObserver;
  private readonly view: SortView = {
    radial: false, eye: new Float32Array(3), direction: new Float32Array(3), cullCosine: 2,
  };
  private readonly toAvatar = new ToAvatar();
  private readonly point = new Vector3();
  private readonly direction = new Vector3();
  private readonly lookPoint = new Vector3();
  private looking: "viewer" | "point" | null = "viewer";
  private playing = false;
  private playback: Playback | null = null;
  private tap: Tap | null = null;
  private wasSpeaking = false;
  private last = 0;
  private frame = 0;

  private constructor(
    readonly element: HTMLElement,
    private readonly file: AvatarFile,
    readonly rig: Rig,
    private readonly voice: Voice,
    readonly track: Track,
    options: Options,
  ) {
    super();
    this.expressions = rig.expressions;
    this.performer = new Performer(rig, track, voice, options.seed ?? 1);
    this.stats = { fps: 0, splats: rig.splats, drawn: 0, rigMs: 0, sortMs: 0, level: 0, simd: rig.simd };
    this.renderer = new WebGLRenderer({ antialias: false, alpha: true, premultipliedAlpha: true });
    this.renderer.xr.enabled = true;
    this.setBackground(options.background ?? "#2a2d33");
    element.append(this.renderer.domElement);
    this.renderer.domElement.style.cssText = "display:block;width:100%;height:100%;touch-action:none";
    this.splats = new SplatMesh(file, rig);
    this.stage.add(this.splats.object);
    this.scene.add(this.stage, this.camera);
    this.controls = new OrbitControls(this.handle, this.renderer.domElement);
    this.controls.minDistance = 0.1;
    this.controls.maxDistance = 10;
    this.controls.addEventListener("change", () => this.aim());
    this.tuner = new Tuner((level) => this.tune(level));
    this.tuner.enabled = options.autoTune ?? true;
    this.headset = new Headset(this);
    this.resized = new ResizeObserver(() => this.fit());
    this.resized.observe(element);
    this.performer.perform();
    this.rig.pose(this.performer.pose);
    this.resetView();
    this.fit();
    this.renderer.setAnimationLoop((now) => this.tick(now));
  }

  /** Load an avatar into an element, which gives the size. `source`: address or bytes of avatar.gsth.bin. */
  static async mount(element: HTMLElement, source: string | ArrayBuffer, options: Options = {}): Promise<Player> {
    const file = await AvatarFile.parse(typeof source === "string" ? await download(source) : source);
    const rig = await Rig.make(file, options.simd ?? true);
    const track = new Track(file);
    return new Player(element, file, rig, await voiceOf(file, track.middle, options.simd ?? true), track, options);
  }

  // ------------------------------------------------------------------------------------------ the page's side

  /**
   * Say something: a sound file by address or bytes, or a live stream (its sound is played too, held back until the
   * picture is ready). Resolves when playing begins; the first call must come from a tap or a key press.
   */
  async speak(source: SoundSource | MediaStream): Promise<void> {
    if (source instanceof MediaStream) return this.follow(source, true);
    const { buffer, samples } = await this.sound.decode(source);
    this.stop();
    const recording = new Recording(this.voice, samples);
    recording.follow();
    this.playback = await this.sound.play(buffer);
    this.performer.setSpeech(recording, this.playback);
  }

  /** The mouth follows the microphone, which is not played. */
  async listen(): Promise<void> {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true } });
    await this.follow(stream, false);
  }

  /** Be silent: ends a sound, a stream, the microphone. */
  stop(): void {
    this.performer.setSpeech(null, null);
    this.tap?.release();
    this.tap = this.playback = null;
  }

  get speaking(): boolean {
    return this.performer.speaking;
  }

  /** Time of the sound that is heard now, s, or null in silence. */
  get speechTime(): number | null {
    return (this.playback ?? this.tap)?.time ?? null;
  }

  /** Play the baked track from where it stands, in a loop. */
  play(): void {
    this.playing = true;
    this.performer.setTrack(true);
  }

  /** Hold the track where it is. */
  pause(): void {
    this.playing = false;
  }

  /** Leave the track: idle, ready to speak. */
  rest(): void {
    this.playing = false;
    this.performer.setTrack(false);
  }

  get inTrack(): boolean {
    return this.playing;
  }

  /** Show one time of the track, s, still, at once. */
  show(time: number): void {
    this.playing = false;
    this.performer.setTrack(true);
    this.track.time = time;
    this.performer.settle();
    this.drawNow();
  }

  /** Hold an expression (an ARKit name for the built-in head) at 0 to 1, a person's own shape at -1 to 1; null gives it back. */
  setExpression(name: string, value: number | null): void {
    const at = this.expressions.indexOf(name);
    if (at < 0) throw new RangeError(`no expression is called ${name}; there are: ${this.expressions.join(", ")}`);
    const low = this.rig.mapped > 0 && at >= this.rig.mapped ? -1 : 0;
    this.performer.hold(at, value === null ? Number.NaN : clamp(value, low, 1));
  }

  /** Look at whoever looks, at a point of the world, or at nothing in particular. */
  lookAt(target: "viewer" | readonly [number, number, number] | null): void {
    this.looking = target === null || target === "viewer" ? target : "point";
    if (target === null) this.performer.lookAt(null);
    else if (target !== "viewer") this.lookPoint.set(...target);
  }

  get gaze(): "viewer" | "point" | null {
    return this.looking;
  }

  /** Blinks, glances and sway; without them the head does only what it is told. */
  setAlive(alive: boolean): void {
    this.performer.alive = alive;
  }

  setBackground(css: string): void {
    const through = css === "transparent";
    this.renderer.setClearColor(new Color(through ? "black" : css), through ? 0 : 1);
  }

  /** Back to the side that the avatar was filmed from. */
  resetView(): void {
    this.stage.position.set(0, 0, 0);
    this.stage.rotation.set(0, 0, 0);
    this.stage.updateMatrixWorld(true);
    this.headPoint(this.controls.target);
    this.place(new Matrix4());
  }

  /** Turn the filming camera around the head, rad; positive: to the right, up (gsth.math3d.orbit). */
  orbit(yaw: number, pitch: number): void {
    this.resetView();
    const { x, y, z } = this.controls.target;
    const turn = new Matrix4().makeRotationY(yaw).multiply(new Matrix4().makeRotationX(-pitch));
    this.place(new Matrix4().makeTranslation(x, y, z).multiply(turn).multiply(new Matrix4().makeTranslation(-x, -y, -z)));
  }

  /** Mean place of the head joint in the world. */
  headPoint(out: Vector3): Vector3 {
    const place = this.rig.jointPlaces[HEAD]!;
    return out.set(place[0]!, place[1]!, place[2]!).applyMatrix4(FLIP).applyMatrix4(this.stage.matrixWorld);
  }

  /** Draw now, and give the picture, RGBA, top row first. */
  snapshot(): ImageData {
    this.drawNow();
    const gl = this.renderer.getContext(), { width, height } = this.renderer.domElement;
    const pixels = new Uint8ClampedArray(width * height * 4), flipped = new Uint8ClampedArray(pixels.length);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
    for (let row = 0; row < height; row++) {
      flipped.set(pixels.subarray((height - 1 - row) * width * 4, (height - row) * width * 4), row * width * 4);
    }
    return new ImageData(flipped, width, height);
  }

  /** End it and free what it holds. */
  dispose(): void {
    this.stop();
    this.headset.leave();
    this.renderer.setAnimationLoop(null);
    this.resized.disconnect();
    this.controls.dispose();
    this.splats.dispose();
    this.renderer.dispose();
    this.renderer.domElement.remove();
    void this.sound.close();
  }

  /** Tell the page of something that failed in the background. */
  fail(error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    this.dispatchEvent(new ErrorEvent("error", { error, message }));
  }

  /** Add to the scene something of the page's own. */
  add(object: Object3D): void {
    this.scene.add(object);
  }

  // ------------------------------------------------------------------------------------------ inside

  private async follow(stream: MediaStream, audible: boolean): Promise<void> {
    this.stop();
    const live = new Live(this.voice);
    this.tap = await this.sound.tap(stream, live, this.voice.delay, audible);
    this.performer.setSpeech(live, this.tap);
  }

  private tick(now: number): void {
    const ms = this.last === 0 ? 0 : now - this.last;
    this.last = now;
    const dt = Math.min(ms / 1000, 0.1);
    this.performer.dt = dt;
    this.performer.time += dt;
    if (this.playing) this.track.time = (this.track.time + dt) % this.track.seconds;
    if (ms > 0) {
      this.stats.fps += SMOOTHING * (1000 / ms - this.stats.fps);
      this.tuner.frame(ms, this.headset.active ? 1000 / this.headset.frameRate : 1000 / 60);
    }
    if (this.headset.active) {
      this.headset.dt = dt;
      this.headset.frame();
    }
    this.draw(this.frame++ % this.tuner.current.sortEvery === 0);
    if (this.speaking !== this.wasSpeaking) {
      this.wasSpeaking = this.speaking;
      this.dispatchEvent(new Event(this.wasSpeaking ? "speechstart" : "speechend"));
    }
  }

  /** Put the camera there, and the handle beside it. */
  private place(camera: Matrix4): void {
    this.handle.position.setFromMatrixPosition(camera);
    this.controls.update();
    this.handle.updateMatrixWorld();
    this.toCamera.copy(this.handle.matrixWorld).invert().multiply(camera);
    this.aim();
  }

  private aim(): void {
    if (this.headset.active) return; // the session's cameras are the headset's
    this.handle.updateMatrixWorld();
    this.camera.matrix.multiplyMatrices(this.handle.matrixWorld, this.toCamera);
    this.camera.matrix.decompose(this.camera.position, this.camera.quaternion, this.camera.scale);
    this.camera.updateMatrixWorld(true);
  }

  /** As if no time had passed. */
  private drawNow(): void {
    this.performer.dt = 0;
    this.draw(true);
  }

  private draw(sorted: boolean): void {
    const { rig, view, stats, tuner } = this;
    this.headset.active ? this.headset.eyePoint(this.point) : this.point.setFromMatrixPosition(this.camera.matrixWorld);
    const toAvatar = this.toAvatar.from(this.stage.matrixWorld);
    if (this.looking !== null) {
      const at = this.lookTarget.copy(this.looking === "viewer" ? this.point : this.lookPoint).applyMatrix4(toAvatar);
      this.lookArray[0] = at.x;
      this.lookArray[1] = at.y;
      this.lookArray[2] = at.z;
      this.performer.lookAt(this.lookArray);
    }
    const timed = this.frame % TIMED_EVERY === 0;
    const began = timed ? performance.now() : 0;
    this.performer.perform();
    rig.pose(this.performer.pose);
    const rigged = timed ? performance.now() : 0;
    if (sorted) {
      this.direction.setFromMatrixColumn(this.camera.matrixWorld, 2).negate().add(this.point).applyMatrix4(toAvatar);
      this.point.applyMatrix4(toAvatar).toArray(view.eye);
      this.direction.sub(this.point).toArray(view.direction);
      view.radial = this.headset.active;
      view.cullCosine = tuner.current.cullCosine;
      rig.sort(view);
    }
    if (timed) {
      stats.rigMs += TIMED_EVERY * SMOOTHING * (rigged - began - stats.rigMs);
      stats.sortMs += TIMED_EVERY * SMOOTHING * (performance.now() - rigged - stats.sortMs);
    }
    stats.drawn = rig.drawn;
    stats.level = tuner.level;
    this.splats.update(true);
    this.renderer.render(this.scene, this.camera);
  }

  private readonly lookTarget = new Vector3();
  private readonly lookArray = new Float32Array(3);

  private tune(level: Level): void {
    this.splats.maxDeviations = level.deviations;
    if (!this.headset.active) this.fit();
  }

  /** Fit the filmed crop into the element, whole. */
  fit(): void {
    if (this.renderer.xr.isPresenting) return;
    const w = Math.max(this.element.clientWidth, 1), h = Math.max(this.element.clientHeight, 1);
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2) * this.tuner.current.pixels);
    this.renderer.setSize(w, h, false);
    const { width, height, K } = this.file.header.camera;
    const scale = Math.min(w / width, h / height);
    const [fx, fy] = [K[0]![0]! * scale, K[1]![1]! * scale];
    const cx = w / 2 + (K[0]![2]! - width / 2) * scale, cy = h / 2 + (K[1]![2]! - height / 2) * scale;
    this.handle.fov = (2 * Math.atan(h / (2 * fy)) * 180) / Math.PI; // for the controls' panning
    this.camera.projectionMatrix.set(
      (2 * fx) / w, 0, 1 - (2 * cx) / w, 0,
      0, (2 * fy) / h, (2 * cy) / h - 1, 0,
      0, 0, -(FAR_M + NEAR_M) / (FAR_M - NEAR_M), (-2 * FAR_M * NEAR_M) / (FAR_M - NEAR_M),
      0, 0, -1, 0,
    );
    this.camera.projectionMatrixInverse.copy(this.camera.projectionMatrix).invert();
  }
}

async function download(address: string): Promise<ArrayBuffer> {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address}: ${answer.status} ${answer.statusText}`);
  return answer.arrayBuffer();
}
