/** The headset: sessions, where the avatar stands, a panel of buttons, rays of hands and controllers. */

import {
  BufferGeometry,
  CanvasTexture,
  Float32BufferAttribute,
  Line,
  LineBasicMaterial,
  Matrix4,
  Mesh,
  MeshBasicMaterial,
  type PerspectiveCamera,
  PlaneGeometry,
  RingGeometry,
  SRGBColorSpace,
  Vector3,
  type XRTargetRaySpace,
} from "three";
import type { Player } from "./player";

export type XRKind = "immersive-vr" | "immersive-ar";

/** Where the avatar appears: in front of the eyes, at their height. Nearer than 0.4 m splats fill the view. */
const DISTANCE_M = 0.75;
const TURN_PER_S = 1.5, WALK_M_PER_S = 1;
const STICK_DEAD = 0.25;
const PANEL_M = [0.36, 0.07] as const;
const PANEL_PX = [720, 140] as const;

interface Button {
  label: () => string;
  press: () => void;
}

export class Headset {
  frameRate = 72;
  /** For `frame`: seconds since the last one. */
  dt = 0;
  private readonly xr;
  private readonly panel: Mesh<PlaneGeometry, MeshBasicMaterial>;
  private readonly spot: Mesh;
  private readonly paint: CanvasRenderingContext2D;
  private readonly rays: XRTargetRaySpace[];
  private readonly buttons: readonly Button[];
  /** A ray: where it begins and where it points, in the world or on the panel. */
  private readonly origin = new Vector3();
  private readonly direction = new Vector3();
  private readonly toPanel = new Matrix4();
  private readonly point = new Vector3();
  private readonly eye = new Vector3();
  private hovered = -1;
  /** Which button was painted as hovered, and what was written on each. */
  private paintedHover = -2;
  private readonly painted: string[] = [];
  private background = 1;
  private placed = false;

  constructor(private readonly player: Player) {
    this.xr = player.renderer.xr;
    this.buttons = [
      { label: () => (player.inTrack ? "Stop" : "Play"), press: () => (player.inTrack ? player.rest() : player.play()) },
      {
        label: () => (player.speaking ? "Mute" : "Mic"),
        press: () => (player.speaking ? player.stop() : void player.listen().catch((e: unknown) => player.fail(e))),
      },
      { label: () => (player.gaze === null ? "Look" : "Look away"), press: () => player.lookAt(player.gaze === null ? "viewer" : null) },
      { label: () => "Recenter", press: () => this.recenter() },
      { label: () => "Leave", press: () => this.leave() },
    ];
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = PANEL_PX;
    this.paint = canvas.getContext("2d")!;
    const map = new CanvasTexture(canvas);
    map.colorSpace = SRGBColorSpace;
    this.panel = new Mesh(new PlaneGeometry(...PANEL_M), new MeshBasicMaterial({ map, transparent: true }));
    this.panel.renderOrder = 1; // over the splats, which write no depth
    const flat = new RingGeometry(0.12, 0.15, 32).rotateX(-Math.PI / 2);
    this.spot = new Mesh(flat, new MeshBasicMaterial({ color: 0x66aaff }));
    this.panel.visible = this.spot.visible = false;
    this.rays = [0, 1].map((i) => this.ray(i));
    player.scene.add(this.panel, this.spot);
    this.xr.addEventListener("sessionend", () => this.ended());
  }

  get active(): boolean {
    return this.xr.isPresenting;
  }

  /** Whether this browser and device can. */
  async can(kind: XRKind): Promise<boolean> {
    return (await navigator.xr?.isSessionSupported(kind).catch(() => false)) ?? false;
  }

  /** Begin; must come from a tap or a key press. */
  async enter(kind: XRKind): Promise<void> {
    if (!navigator.xr) throw new Error("this browser has no WebXR; it needs https and a headset's browser");
    const session = await navigator.xr.requestSession(kind, {
      requiredFeatures: ["local-floor"],
      optionalFeatures: ["hand-tracking"],
    });
    const { renderer } = this.player;
    this.xr.setReferenceSpaceType("local-floor");
    this.xr.setFramebufferScaleFactor(0.9);
    await this.xr.setSession(session);
    this.xr.setFoveation(1);
    await this.chooseRate(session);
    this.background = renderer.getClearAlpha();
    if (kind === "immersive-ar") renderer.setClearAlpha(0);
    this.panel.visible = true;
    this.placed = false;
    this.player.dispatchEvent(new Event("xrstart"));
  }

  leave(): void {
    void this.xr.getSession()?.end();
  }

  /** Put the avatar before the wearer, upright, face to face. */
  recenter(): void {
    const { stage } = this.player;
    const head = this.player.headPoint(new Vector3()).applyMatrix4(stage.matrixWorld.clone().invert());
    const ahead = new Vector3(0, 0, -1).transformDirection(this.eyes()[0]!.matrix).setY(0);
    if (ahead.lengthSq() < 1e-6) ahead.set(0, 0, -1);
    ahead.normalize();
    stage.rotation.set(0, Math.atan2(-ahead.x, -ahead.z), 0);
    const wanted = this.eyePoint(new Vector3()).addScaledVector(ahead, DISTANCE_M);
    wanted.y -= 0.03; // the head joint lies a little below the eyes
    stage.position.copy(wanted).sub(head.applyEuler(stage.rotation));
    stage.updateMatrixWorld(true);
    this.panel.position.copy(wanted).addScaledVector(ahead, -0.15);
    this.panel.position.y -= 0.34;
    this.panel.rotation.set(-0.5, stage.rotation.y, 0, "YXZ");
  }

  /** Between the eyes, world. */
  eyePoint(out: Vector3): Vector3 {
    const eyes = this.eyes();
    out.set(0, 0, 0);
    for (let i = 0; i < eyes.length; i++) out.addScaledVector(eyes[i]!.position, 1 / eyes.length);
    return out;
  }

  /** Once for each frame of a session. */
  frame(): void {
    if (this.eyes().length === 0) return;
    if (!this.placed) {
      this.recenter();
      this.placed = true;
    }
    this.sticks();
    this.hovered = -1;
    this.spot.visible = false;
    for (let i = 0; i < this.rays.length; i++) this.hover(this.rays[i]!);
    this.repaint();
  }

  private eyes(): readonly PerspectiveCamera[] {
    return this.xr.getCamera().cameras;
  }

  private async chooseRate(session: XRSession): Promise<void> {
    // 72 Hz leaves splats the most time of the rates that do not flicker.
    const rates = session.supportedFrameRates;
    this.frameRate = rates?.includes(72) ? 72 : (session.frameRate ?? 72);
    if (rates?.includes(72)) await session.updateTargetFrameRate(72).catch(() => undefined);
  }

  private ray(index: number): XRTargetRaySpace {
    const space = this.xr.getController(index);
    const shape = new BufferGeometry();
    shape.setAttribute("position", new Float32BufferAttribute([0, 0, 0, 0, 0, -1], 3));
    const line = new Line(shape, new LineBasicMaterial({ color: 0x88bbff, transparent: true, opacity: 0.5 }));
    space.add(line);
    space.addEventListener("select", () => this.select(space));
    this.player.scene.add(space);
    return space;
  }

  /** What a ray meets: a button, or the floor. */
  private hover(space: XRTargetRaySpace): void {
    if (!space.visible) return;
    const button = this.meets(space);
    if (button >= 0) this.hovered = button;
    else if (this.floor(space, this.point)) {
      this.spot.visible = true;
      this.spot.position.copy(this.point);
    }
  }

  private select(space: XRTargetRaySpace): void {
    const button = this.meets(space);
    if (button >= 0) this.buttons[button]!.press();
    else if (this.floor(space, this.point)) this.teleport(this.point);
  }

  /** Which button a ray meets, or -1. */
  private meets(space: XRTargetRaySpace): number {
    this.aim(space);
    const { origin, direction, toPanel } = this;
    this.panel.updateWorldMatrix(false, false);
    toPanel.copy(this.panel.matrixWorld).invert();
    origin.applyMatrix4(toPanel);
    direction.transformDirection(toPanel);
    const far = -origin.z / direction.z; // the panel is its plane z = 0, seen from the front
    if (!(far > 0 && direction.z < 0)) return -1;
    const x = (origin.x + far * direction.x) / PANEL_M[0] + 0.5, y = (origin.y + far * direction.y) / PANEL_M[1] + 0.5;
    if (x < 0 || x >= 1 || y < 0 || y >= 1) return -1;
    return Math.floor(x * this.buttons.length);
  }

  private floor(space: XRTargetRaySpace, out: Vector3): boolean {
    this.aim(space);
    const { origin, direction } = this;
    if (direction.y > -0.1) return false;
    out.copy(origin).addScaledVector(direction, -origin.y / direction.y);
    return out.distanceTo(origin) < 6;
  }

  private aim(space: XRTargetRaySpace): void {
    this.origin.setFromMatrixPosition(space.matrixWorld);
    this.direction.set(0, 0, -1).transformDirection(space.matrixWorld);
  }

  /** Stand there: the world moves, the wearer does not. */
  private teleport(point: Vector3): void {
    const eye = this.eyePoint(this.eye);
    this.shift(eye.x - point.x, eye.z - point.z);
  }

  private shift(x: number, z: number): void {
    for (const object of [this.player.stage, this.panel]) {
      object.position.x += x;
      object.position.z += z;
    }
    this.player.stage.updateMatrixWorld(true);
  }

  /** Sideways turns the avatar, forward and back brings it nearer and farther. */
  private sticks(): void {
    const sources = this.xr.getSession()?.inputSources;
    if (!sources) return;
    for (let i = 0; i < sources.length; i++) {
      const axes = sources[i]!.gamepad?.axes;
      if (!axes || axes.length < 4) continue;
      const turn = axes[2]!, walk = axes[3]!;
      if (Math.abs(turn) > STICK_DEAD) this.turn(turn * TURN_PER_S * this.dt);
      if (Math.abs(walk) > STICK_DEAD) {
        const ahead = this.player.headPoint(this.point).sub(this.eyePoint(this.eye)).setY(0).normalize();
        const step = walk * WALK_M_PER_S * this.dt;
        this.shift(step * ahead.x, step * ahead.z);
      }
    }
  }

  private turn(angle: number): void {
    const { stage } = this.player;
    const before = this.player.headPoint(new Vector3());
    stage.rotation.y += angle;
    stage.updateMatrixWorld(true);
    stage.position.add(before.sub(this.player.headPoint(new Vector3())));
    stage.updateMatrixWorld(true);
  }

  private repaint(): void {
    let changed = this.hovered !== this.paintedHover;
    for (let i = 0; i < this.buttons.length; i++) {
      const label = this.buttons[i]!.label();
      changed ||= label !== this.painted[i];
      this.painted[i] = label;
    }
    if (!changed) return;
    this.paintedHover = this.hovered;
    const { paint, buttons } = this, [w, h] = PANEL_PX, width = w / buttons.length;
    paint.clearRect(0, 0, w, h);
    paint.textAlign = "center";
    paint.textBaseline = "middle";
    paint.font = "28px system-ui, sans-serif";
    buttons.forEach((button, i) => {
      paint.fillStyle = i === this.hovered ? "#3d6fb8" : "#20242cd0";
      paint.beginPath();
      paint.roundRect(i * width + 4, 4, width - 8, h - 8, 20);
      paint.fill();
      paint.fillStyle = "#fff";
      paint.fillText(button.label(), (i + 0.5) * width, h / 2, width - 20);
    });
    this.panel.material.map!.needsUpdate = true;
  }

  private ended(): void {
    this.panel.visible = this.spot.visible = false;
    this.player.renderer.setClearAlpha(this.background);
    this.player.fit(); // the session's cameras overwrote the lens
    this.player.resetView();
    this.player.dispatchEvent(new Event("xrend"));
  }
}
