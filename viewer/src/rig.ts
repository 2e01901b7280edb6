/** An avatar's file made ready to move: expressions and joints in, posed splats and their order out. */

import kernelBytes from "../build/kernels.wasm";
import type { AvatarFile } from "./format";
import { Arena, compiled, type Kernels, PlainKernels } from "./kernels";
import { quatToMat, quatToRotvec } from "./math";

export const TEXTURE_WIDTH = 1024;
const SH_C0 = 0.28209479177387814;
/** Corrective weights beyond this many deviations are held (gsth.avatar). */
const MAX_WEIGHT = 2.5;
const NECK = 1;

/** What moves a head: one frame of it. */
export interface Pose {
  /** Activations, 0 to 1, in the file's order. */
  expr: Float32Array;
  /** Rotation of each joint relative to its parent, wxyz. */
  joints: Float32Array;
  /** Places the head in the world: wxyz, xyz. */
  place: Float32Array;
}

export interface SortView {
  /** Distance from the eye, which holds when the head turns; else depth along the view, as in training. */
  radial: boolean;
  /** Eye and viewing direction, avatar frame. */
  eye: Float32Array;
  direction: Float32Array;
  /** Skin turned away by more than this cosine is left out; above 1 nothing is. */
  cullCosine: number;
}

export class Rig {
  readonly expressions: readonly string[];
  /** The first so many of them are mapped to the person's own shapes, which follow. */
  readonly mapped: number;
  readonly splats: number;
  readonly faces: number;
  /** Size of a texture that holds all splats, or all triangle frames (two texels each). */
  readonly splatRows: number;
  readonly frameRows: number;
  /** Skinned vertices, four floats each. */
  readonly verts: Float32Array;
  /** Two RGBA texels per triangle: first edge's direction and size; normal. */
  readonly frames: Float32Array;
  /** One texel per splat: x, y, z as float bits; packed colour. */
  readonly posed: Uint32Array;
  /** Splats from far to near, of which the first `drawn` count. */
  readonly order: Uint32Array;
  drawn = 0;
  /** Rotation of each joint in the world, row by row, and its place; fresh after `pose`. */
  readonly jointRotations: Float32Array[];
  readonly jointPlaces: Float32Array[];

  private constructor(
    file: AvatarFile,
    private readonly layout: Layout,
    private readonly kernels: Kernels,
    buffer: ArrayBuffer,
    readonly simd: boolean,
  ) {
    this.expressions = file.expressions;
    this.mapped = file.header.mapped?.length ?? 0;
    this.shapes = file.header.expressions.length;
    if (this.mapped > 0) this.shapesOf = file.values("expression_map");
    this.splats = layout.splats;
    this.faces = layout.faces;
    this.splatRows = layout.splatRows;
    this.frameRows = layout.frameRows;
    this.verts = new Float32Array(buffer, layout.skinned, layout.verts * 4);
    this.frames = new Float32Array(buffer, layout.frames, layout.frameRows * TEXTURE_WIDTH * 4);
    this.posed = new Uint32Array(buffer, layout.posed, layout.splatRows * TEXTURE_WIDTH * 4);
    this.order = new Uint32Array(buffer, layout.order, layout.padded);
    this.rest = new Float32Array(buffer, layout.rest, layout.verts * 4);
    this.blended = new Float32Array(buffer, layout.blended, layout.verts * 4);
    this.affines = new Float32Array(buffer, layout.affines, layout.joints * 16);
    this.origins = new Float32Array(buffer, layout.origins, layout.faces * 4);
    this.hidden = new Uint8Array(buffer, layout.hidden, layout.faces);
    this.pairWeights = new Int16Array(buffer, layout.pairWeights, 6 * layout.pairs * 2);
    this.scales = new Float32Array(buffer, layout.scales, 6);
    this.parents = file.header.parents;
    this.pivots = file.values("pivots");
    this.flags = file.raw("face_flags") as Uint8Array;
    this.basisStep = file.values("basis_step");
    this.amounts = new Float32Array(buffer, layout.amounts, this.shapes);
    this.along = new Float32Array(buffer, layout.along, 3);
    this.shapeWeights = new Float32Array(this.shapes);
    this.jointRotations = this.parents.map(() => new Float32Array(9));
    this.jointPlaces = this.parents.map(() => new Float32Array(3));
    if (layout.pairs > 0) {
      this.correctiveMean = file.values("corrective_mean");
      this.correctiveBasis = file.values("corrective_basis");
      this.steps = [file.values("corrective_means_step"), file.values("corrective_sh0_step")];
      this.features = new Float32Array(this.correctiveMean.length);
      this.weights = new Float32Array(this.steps[0]!.length / 3);
    }
  }

  private readonly rest: Float32Array;
  private readonly blended: Float32Array;
  private readonly affines: Float32Array;
  private readonly origins: Float32Array;
  private readonly hidden: Uint8Array;
  private readonly pairWeights: Int16Array;
  private readonly scales: Float32Array;
  private readonly parents: number[];
  private readonly pivots: Float32Array;
  private readonly flags: Uint8Array;
  private readonly basisStep: Float32Array;
  private readonly amounts: Float32Array;
  private readonly along: Float32Array;
  private readonly shapes: number;
  /** Of each mapped expression: the person's own shapes, [mapped, shapes]. */
  private readonly shapesOf: Float32Array = new Float32Array(0);
  private readonly shapeWeights: Float32Array;
  private readonly correctiveMean: Float32Array = new Float32Array(0);
  private readonly correctiveBasis: Float32Array = new Float32Array(0);
  private readonly steps: Float32Array[] = [];
  private readonly features = new Float32Array(0);
  private readonly weights = new Float32Array(0);
  private readonly root = new Float32Array(9);
  private readonly local = new Float32Array(9);

  /** Lay the file out in memory; `simd: false` uses the plain kernels. */
  static async make(file: AvatarFile, simd = true): Promise<Rig> {
    const arena = new Arena();
    const layout = new Layout(file, arena);
    const memory = arena.memory();
    const buffer = memory.buffer as ArrayBuffer;
    layout.fill(file, buffer);
    const fast = simd ? await compiled(kernelBytes, memory) : null;
    return new Rig(file, layout, fast ?? new PlainKernels(buffer), buffer, fast !== null);
  }

  /** Fill `verts`, `frames` and `posed` for one pose. */
  pose(pose: Pose): void {
    const { layout, kernels } = this;
    this.blended.set(this.rest);
    this.shape(pose);
    kernels.addShapes(layout.shapeParams, this.shapes);
    this.chain(pose);
    kernels.skin(layout.blended, layout.skinned, layout.weights, layout.affines, layout.verts, layout.joints);
    kernels.triangleFrames(layout.skinned, layout.faceVerts, layout.frames, layout.origins, layout.faces);
    if (layout.pairs > 0) this.weigh(pose);
    kernels.carry(layout.carryParams, layout.padded);
  }

  /** Fill `order` and `drawn` for the posed splats. */
  sort(view: SortView): void {
    const { layout, flags, frames, origins, hidden } = this;
    const x = view.eye[0]!, y = view.eye[1]!, z = view.eye[2]!;
    for (let f = 0, o = 0; f < layout.faces; f++, o += 4) {
      if (flags[f] === 0 || view.cullCosine > 1) {
        hidden[f] = 0;
        continue;
      }
      const dx = origins[o]! - x, dy = origins[o + 1]! - y, dz = origins[o + 2]! - z;
      const away = dx * frames[f * 8 + 4]! + dy * frames[f * 8 + 5]! + dz * frames[f * 8 + 6]!;
      hidden[f] = away > view.cullCosine * Math.sqrt(dx * dx + dy * dy + dz * dz) ? 1 : 0;
    }
    this.along.set(view.radial ? view.eye : view.direction);
    this.drawn = this.kernels.sortSplats(layout.sortParams, layout.splats, view.radial ? 1 : 0);
  }

  /** How much of each of the file's shapes. */
  private shape(pose: Pose): void {
    const { shapeWeights, shapesOf, mapped, shapes, amounts, basisStep } = this;
    for (let s = 0; s < shapes; s++) shapeWeights[s] = pose.expr[mapped + s]!;
    for (let e = 0; e < mapped; e++) {
      const amount = pose.expr[e]!;
      if (amount === 0) continue;
      for (let s = 0; s < shapes; s++) shapeWeights[s]! += amount * shapesOf[e * shapes + s]!;
    }
    for (let s = 0; s < shapes; s++) amounts[s] = shapeWeights[s]! * basisStep[s]!;
  }

  /** World transforms of the joints (gsth.head._lbs). */
  private chain(pose: Pose): void {
    const { parents, pivots, root, local, jointRotations, jointPlaces, affines } = this;
    quatToMat(root, pose.place, 0);
    for (let j = 0; j < parents.length; j++) {
      const rotation = jointRotations[j]!, place = jointPlaces[j]!, parent = parents[j]!;
      const above = parent < 0 ? root : jointRotations[parent]!;
      quatToMat(local, pose.joints, j * 4);
      for (let r = 0; r < 3; r++) {
        let moved = parent < 0 ? pose.place[4 + r]! : jointPlaces[parent]![r]!;
        for (let c = 0; c < 3; c++) {
          moved += above[r * 3 + c]! * (pivots[j * 3 + c]! - (parent < 0 ? 0 : pivots[parent * 3 + c]!));
          rotation[r * 3 + c] =
            above[r * 3]! * local[c]! + above[r * 3 + 1]! * local[3 + c]! + above[r * 3 + 2]! * local[6 + c]!;
        }
        place[r] = moved;
      }
      for (let r = 0; r < 3; r++) {
        let shift = place[r]!;
        for (let c = 0; c < 3; c++) {
          affines[j * 16 + c * 4 + r] = rotation[r * 3 + c]!;
          shift -= rotation[r * 3 + c]! * pivots[j * 3 + c]!;
        }
        affines[j * 16 + 12 + r] = shift;
      }
    }
  }

  /** Corrective weights (gsth.avatar.Correctives), as int16 for the kernel, which multiplies them with int8 deltas. */
  private weigh(pose: Pose): void {
    const { features, weights, correctiveBasis, correctiveMean, steps, pairWeights, scales, layout } = this;
    const turns = this.shapes;
    features.set(this.shapeWeights);
    quatToRotvec(features, turns, pose.joints, NECK * 4);
    quatToRotvec(features, turns + 3, pose.joints, NECK * 4 + 4);
    quatToRotvec(features, turns + 6, pose.place, 0);
    for (let b = 0; b < weights.length; b++) {
      let raw = 0;
      for (let x = 0; x < features.length; x++) {
        raw += correctiveBasis[b * features.length + x]! * (features[x]! - correctiveMean[x]!);
      }
      weights[b] = MAX_WEIGHT * Math.tanh(raw / MAX_WEIGHT);
    }
    for (let c = 0; c < 6; c++) {
      const step = steps[c < 3 ? 0 : 1]!, axis = c % 3, unit = c < 3 ? 1 : SH_C0;
      let top = 1e-12;
      for (let b = 0; b < weights.length; b++) top = Math.max(top, Math.abs(weights[b]! * step[b * 3 + axis]!));
      scales[c] = (unit * top) / 32767;
      for (let b = 0; b < weights.length; b++) {
        pairWeights[c * layout.pairs * 2 + b] = Math.round((weights[b]! * step[b * 3 + axis]! * 32767) / top);
      }
    }
  }
}

/** Where everything lies in the memory. */
class Layout {
  readonly verts: number;
  readonly faces: number;
  readonly joints: number;
  readonly splats: number;
  /** Splats, rounded up to blocks of four. */
  readonly padded: number;
  readonly pairs: number;
  readonly splatRows: number;
  readonly frameRows: number;
  readonly rest: number;
  readonly blended: number;
  readonly skinned: number;
  readonly weights: number;
  readonly affines: number;
  readonly basisVert: number;
  readonly basisDelta: number;
  readonly counts: number;
  readonly amounts: number;
  readonly faceVerts: number;
  readonly frames: number;
  readonly origins: number;
  readonly hidden: number;
  readonly splatFace: number;
  readonly means: number;
  readonly colors: number;
  readonly deltas: number;
  readonly pairWeights: number;
  readonly scales: number;
  readonly scratch: number;
  readonly posed: number;
  readonly depths: number;
  readonly bins: number;
  readonly order: number;
  readonly along: number;
  readonly shapeParams: number;
  readonly carryParams: number;
  readonly sortParams: number;

  constructor(file: AvatarFile, arena: Arena) {
    this.verts = file.shape("rest")[0]!;
    this.faces = file.shape("faces")[0]!;
    this.joints = file.header.joints.length;
    this.splats = file.shape("splat_face")[0]!;
    this.padded = (this.splats + 3) & ~3;
    const correctives = file.has("corrective_means") ? file.shape("corrective_means")[0]! : 0;
    this.pairs = (correctives + 1) >> 1;
    this.splatRows = Math.max(1, Math.ceil(this.splats / TEXTURE_WIDTH));
    this.frameRows = Math.max(1, Math.ceil((this.faces * 2) / TEXTURE_WIDTH));
    const moving = file.shape("basis_vert")[0]!;
    this.rest = arena.take(this.verts * 16);
    this.blended = arena.take(this.verts * 16);
    this.skinned = arena.take(this.verts * 16);
    this.weights = arena.take(this.verts * this.joints * 4);
    this.affines = arena.take(this.joints * 64);
    this.basisVert = arena.take(moving * 4);
    this.basisDelta = arena.take(moving * 8);
    this.counts = arena.take(file.header.expressions.length * 4);
    this.amounts = arena.take(file.header.expressions.length * 4);
    this.faceVerts = arena.take(this.faces * 12);
    this.frames = arena.take(this.frameRows * TEXTURE_WIDTH * 16);
    this.origins = arena.take(this.faces * 16);
    this.hidden = arena.take(this.faces);
    this.splatFace = arena.take(this.padded * 4);
    this.means = arena.take(this.padded * 16);
    this.colors = arena.take(this.padded * 16);
    this.deltas = arena.take(this.padded * this.pairs * 12);
    this.pairWeights = arena.take(this.pairs * 24);
    this.scales = arena.take(24);
    this.scratch = arena.take(96);
    this.posed = arena.take(this.splatRows * TEXTURE_WIDTH * 16);
    this.depths = arena.take(this.padded * 4);
    this.bins = arena.take(65536 * 4);
    this.order = arena.take(this.padded * 4);
    this.along = arena.take(12);
    this.shapeParams = arena.take(20);
    this.carryParams = arena.take(44);
    this.sortParams = arena.take(28);
  }

  /** Copy the file's arrays to their places. */
  fill(file: AvatarFile, buffer: ArrayBuffer): void {
    spread(new Float32Array(buffer, this.rest), file.values("rest"), 3);
    new Float32Array(buffer, this.weights).set(unitRows(file.values("weights"), this.joints));
    new Uint32Array(buffer, this.basisVert).set(file.raw("basis_vert"));
    spread(new Int16Array(buffer, this.basisDelta), file.raw("basis_delta"), 3);
    new Uint32Array(buffer, this.counts).set(file.raw("basis_count"));
    new Uint32Array(buffer, this.faceVerts).set(file.raw("faces"));
    new Uint32Array(buffer, this.splatFace).set(file.raw("splat_face"));
    const means = new Float32Array(buffer, this.means, this.padded * 4);
    spread(means, file.values("splat_mean"), 3);
    const reach = file.has("corrective_reach") ? file.raw("corrective_reach") : null; // of version 2
    for (let n = 0; n < this.splats; n++) means[n * 4 + 3] = reach ? reach[n]! / 65535 : 1;
    spread(new Float32Array(buffer, this.colors), file.values("splat_sh0").map((c) => 0.5 + SH_C0 * c), 3);
    if (this.pairs > 0) this.fillDeltas(file, new Int8Array(buffer, this.deltas));
    new Uint32Array(buffer, this.carryParams).set([
      this.splatFace, this.means, this.colors, this.frames, this.origins, this.deltas, this.pairs, this.pairWeights,
      this.scales, this.scratch, this.posed,
    ]);
    new Uint32Array(buffer, this.sortParams).set([
      this.posed, this.splatFace, this.hidden, this.depths, this.bins, this.order, this.along,
    ]);
    new Uint32Array(buffer, this.shapeParams).set([
      this.blended, this.basisVert, this.basisDelta, this.counts, this.amounts,
    ]);
  }

  /** From planes [b, 3, n] to blocks of four splats: [block, 6 channels, pair, splat, two]. */
  private fillDeltas(file: AvatarFile, out: Int8Array): void {
    const count = file.shape("corrective_means")[0]!;
    ["corrective_means", "corrective_sh0"].forEach((name, kind) => {
      const planes = file.raw(name);
      for (let b = 0; b < count; b++) {
        for (let axis = 0; axis < 3; axis++) {
          const plane = (b * 3 + axis) * this.splats, c = kind * 3 + axis;
          for (let n = 0; n < this.splats; n++) {
            out[((((n >> 2) * 6 + c) * this.pairs + (b >> 1)) * 4 + (n & 3)) * 2 + (b & 1)] = planes[plane + n]!;
          }
        }
      }
    });
  }
}

/** Rows of `width` numbers to rows of four. */
function spread(out: Float32Array | Int16Array, values: ArrayLike<number>, width: number): void {
  for (let i = 0; i < values.length; i++) out[Math.floor(i / width) * 4 + (i % width)] = values[i]!;
}

/** Rows that sum to one. */
function unitRows(values: Float32Array, width: number): Float32Array {
  for (let i = 0; i < values.length; i += width) {
    let sum = 0;
    for (let k = 0; k < width; k++) sum += values[i + k]!;
    for (let k = 0; k < width; k++) values[i + k]! /= sum;
  }
  return values;
}
