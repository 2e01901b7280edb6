/** Draws an avatar's splats: one instanced quad each, EWA projection with the constants of gsth/render/torch_ref.py. */

import {
  CustomBlending,
  DataTexture,
  DoubleSide,
  DynamicDrawUsage,
  FloatType,
  GLSL3,
  InstancedBufferAttribute,
  InstancedBufferGeometry,
  Float32BufferAttribute,
  Matrix4,
  Mesh,
  NearestFilter,
  OneFactor,
  OneMinusSrcAlphaFactor,
  type PerspectiveCamera,
  RawShaderMaterial,
  RGBAFormat,
  RGBAIntegerFormat,
  Sphere,
  UnsignedIntType,
  Vector2,
  Vector3,
  Vector4,
  type WebGLRenderer,
} from "three";
import type { AvatarFile } from "./format";
import { COLOR_LOW, COLOR_SPAN } from "./kernels";
import { type Rig, TEXTURE_WIDTH } from "./rig";

const VERTEX = /* glsl */ `
precision highp float;
precision highp int;
precision highp usampler2D;

in vec2 position;
in uint splat;

uniform sampler2D frames;
uniform usampler2D fixedPart, posed;
#ifdef SH1
uniform usampler2D sh1;
uniform float shStart[9], shStep[9];
#endif
uniform mat4 view;
uniform vec4 lens;
uniform vec2 size, clipZ, scaleStart[3];
uniform vec3 eye;
uniform float maxReach;

out vec2 at;
out vec4 color;
out float reach;

const float WIDTH = ${TEXTURE_WIDTH}.0;

ivec2 texel(uint i) {
  return ivec2(int(i) % ${TEXTURE_WIDTH}, int(i) / ${TEXTURE_WIDTH});
}

mat3 turn(uint code) {
  vec3 o = (vec3(uvec3(code >> 20, code >> 10, code) & 1023u) * (2.0 / 1023.0) - 1.0) * 0.70710678118;
  float m = sqrt(max(1.0 - dot(o, o), 0.0));
  uint largest = code >> 30;
  vec4 q = largest == 0u ? vec4(m, o) : largest == 1u ? vec4(o.x, m, o.yz) : largest == 2u ? vec4(o.xy, m, o.z) : vec4(o, m);
  float w = q.x, x = q.y, y = q.z, z = q.w;
  return mat3(
    1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
    2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
    2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
}

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0); // outside: nothing is drawn
  uvec4 now = texelFetch(posed, texel(splat), 0);
  uvec4 own = texelFetch(fixedPart, texel(splat), 0);
  vec3 mean = uintBitsToFloat(now.xyz);
  vec3 m = (view * vec4(mean, 1.0)).xyz;
  if (m.z < 0.01) return;

  uint face = own.x & 0xffffu;
  vec4 first = texelFetch(frames, texel(face * 2u), 0);
  vec3 normal = texelFetch(frames, texel(face * 2u + 1u), 0).xyz;
  vec3 q = vec3(float(own.z & 0xffffu), float(own.z >> 16), float(own.w & 0xffffu));
  vec3 scale = first.w * exp(vec3(scaleStart[0].x, scaleStart[1].x, scaleStart[2].x)
    + vec3(scaleStart[0].y, scaleStart[1].y, scaleStart[2].y) * q);
  mat3 axes = mat3(view) * mat3(first.xyz, normal, cross(first.xyz, normal)) * turn(own.y);
  axes = mat3(axes[0] * scale.x, axes[1] * scale.y, axes[2] * scale.z);

  // Far outside the image the linearised projection explodes; it is held 15 % beyond the border.
  vec2 margin = 0.15 * size;
  vec2 ray = clamp(m.xy / m.z, (-lens.zw - margin) / lens.xy, (size - lens.zw + margin) / lens.xy);
  vec3 jx = vec3(lens.x / m.z, 0.0, -lens.x * ray.x / m.z);
  vec3 jy = vec3(0.0, lens.y / m.z, -lens.y * ray.y / m.z);
  vec3 hx = jx * axes, hy = jy * axes;
  float xx = dot(hx, hx) + 0.3, xy = dot(hx, hy), yy = dot(hy, hy) + 0.3;

  float opacity = float(own.w >> 16) / 65535.0;
  reach = min(2.0 * log(max(opacity * 255.0, 1.0)), maxReach);
  if (reach <= 0.0) return;
  float middle = 0.5 * (xx + yy);
  float radius = length(vec2(0.5 * (xx - yy), xy));
  float major = middle + radius, minor = max(middle - radius, 1e-6);
  vec2 along = abs(xy) > 1e-9 ? normalize(vec2(xy, major - xx)) : xx >= yy ? vec2(1.0, 0.0) : vec2(0.0, 1.0);
  vec2 px = lens.xy * m.xy / m.z + lens.zw;
  px += position.x * sqrt(reach * major) * along + position.y * sqrt(reach * minor) * vec2(-along.y, along.x);

  vec3 rgb = vec3(uvec3(now.w >> 21, now.w >> 10, now.w) & uvec3(2047u, 2047u, 1023u));
  rgb = rgb * (${COLOR_SPAN.toFixed(2)} / vec3(2047.0, 2047.0, 1023.0)) + (${COLOR_LOW.toFixed(2)});
#ifdef SH1
  uvec4 packed = texelFetch(sh1, texel(splat), 0);
  vec3 d = normalize(mean - eye);
  vec3 basis = 0.4886025119029199 * vec3(-d.y, d.z, -d.x);
  for (int i = 0; i < 9; i++) {
    uint word = i < 4 ? packed.x : i < 8 ? packed.y : packed.z;
    float value = shStart[i] + shStep[i] * float((word >> uint((i & 3) * 8)) & 255u);
    rgb[i % 3] += basis[i / 3] * value;
  }
#endif
  color = vec4(max(rgb, 0.0), opacity);
  at = position;
  vec2 ndc = px / size * 2.0 - 1.0;
  gl_Position = vec4(ndc.x, -ndc.y, clipZ.x + clipZ.y / m.z, 1.0);
}`;

const FRAGMENT = /* glsl */ `
precision highp float;
in vec2 at;
in vec4 color;
in float reach;
out vec4 pixel;

void main() {
  float far = dot(at, at);
  if (far > 1.0) discard;
  float alpha = min(color.a * exp(-0.5 * reach * far), 0.99);
  pixel = vec4(color.rgb * alpha, alpha);
}`;

/** House axes (x right, y down, z forward) to three's (y up, z backward), and back: the same matrix. */
export const FLIP = new Matrix4().makeScale(1, -1, -1);

/** Avatar frame as three sees it: put `object` into a scene; its local axes are three's. */
export class SplatMesh {
  readonly object: Mesh;
  /** Largest number of deviations that are drawn; all of them where alpha ends first. */
  maxDeviations = 4;
  private readonly material: RawShaderMaterial;
  private readonly frames: DataTexture;
  private readonly posed: DataTexture;
  private readonly order: InstancedBufferAttribute;
  private readonly geometry = new InstancedBufferGeometry();
  private readonly toAvatar = new ToAvatar();
  private readonly viewport = new Vector4();
  private readonly target = new Vector2();

  constructor(
    file: AvatarFile,
    private readonly rig: Rig,
  ) {
    this.frames = new DataTexture(rig.frames, TEXTURE_WIDTH, rig.frameRows, RGBAFormat, FloatType);
    this.posed = integers(rig.posed, rig.splatRows);
    const logScale = file.header.arrays["splat_log_scale"]!;
    const sh1 = file.has("splat_sh1");
    this.material = new RawShaderMaterial({
      glslVersion: GLSL3,
      defines: sh1 ? { SH1: "" } : {},
      vertexShader: VERTEX,
      fragmentShader: FRAGMENT,
      uniforms: {
        frames: { value: this.frames },
        posed: { value: this.posed },
        fixedPart: { value: integers(fixedPart(file, rig.splatRows), rig.splatRows) },
        scaleStart: { value: logScale.start!.map((s, i) => new Vector2(s, logScale.step![i])) },
        view: { value: new Matrix4() },
        lens: { value: new Vector4() },
        size: { value: new Vector2() },
        clipZ: { value: new Vector2() },
        eye: { value: new Vector3() },
        maxReach: { value: 0 },
        ...(sh1 && {
          sh1: { value: integers(bytesAsTexels(file.raw("splat_sh1"), 9, rig.splatRows), rig.splatRows) },
          shStart: { value: file.header.arrays["splat_sh1"]!.start },
          shStep: { value: file.header.arrays["splat_sh1"]!.step },
        }),
      },
      side: DoubleSide,
      transparent: true,
      depthWrite: false,
      blending: CustomBlending,
      blendSrc: OneFactor,
      blendDst: OneMinusSrcAlphaFactor,
    });
    this.geometry.setAttribute("position", new Float32BufferAttribute([-1, -1, 1, -1, -1, 1, 1, 1], 2));
    this.geometry.setIndex([0, 1, 2, 2, 1, 3]);
    this.geometry.boundingSphere = new Sphere(new Vector3(), 10); // else three measures the corners of a quad
    this.order = new InstancedBufferAttribute(rig.order, 1);
    this.order.setUsage(DynamicDrawUsage);
    this.geometry.setAttribute("splat", this.order);
    this.object = new Mesh(this.geometry, this.material);
    this.object.frustumCulled = false;
    this.object.onBeforeRender = (renderer, _scene, camera) => this.aim(renderer, camera as PerspectiveCamera);
  }

  /** Hand the rig's new pose and order to the GPU. */
  update(posed: boolean): void {
    if (posed) this.frames.needsUpdate = this.posed.needsUpdate = true;
    this.order.needsUpdate = true;
    this.geometry.instanceCount = this.rig.drawn;
  }

  dispose(): void {
    this.geometry.dispose();
    for (const { value } of Object.values(this.material.uniforms)) if (value instanceof DataTexture) value.dispose();
    this.material.dispose();
  }

  /** Lens and view of the camera that draws now: in a headset, of one eye. */
  private aim(renderer: WebGLRenderer, camera: PerspectiveCamera): void {
    const u = this.material.uniforms;
    const eyeViewport = (camera as PerspectiveCamera & { viewport?: Vector4 }).viewport;
    if (eyeViewport) this.viewport.copy(eyeViewport);
    else {
      renderer.getDrawingBufferSize(this.target);
      this.viewport.set(0, 0, this.target.x, this.target.y);
    }
    const { z: w, w: h } = this.viewport;
    const p = camera.projectionMatrix.elements;
    u["lens"]!.value.set((p[0]! * w) / 2, (p[5]! * h) / 2, ((1 - p[8]!) * w) / 2, ((1 + p[9]!) * h) / 2);
    u["size"]!.value.set(w, h);
    u["clipZ"]!.value.set(-p[10]!, p[14]!);
    const view = u["view"]!.value as Matrix4;
    view.multiplyMatrices(camera.matrixWorldInverse, this.object.matrixWorld).premultiply(FLIP).multiply(FLIP);
    const eye = u["eye"]!.value as Vector3;
    eye.setFromMatrixPosition(camera.matrixWorld).applyMatrix4(this.toAvatar.from(this.object.matrixWorld));
    u["maxReach"]!.value = this.maxDeviations ** 2;
    this.material.uniformsNeedUpdate = true;
  }
}

/** Takes points of three's world into the avatar's frame. */
export class ToAvatar {
  private readonly matrix = FLIP.clone();
  private readonly world = new Matrix4();

  /** The matrix while the avatar stands there; worked out anew only where it has moved. */
  from(avatarWorld: Matrix4): Matrix4 {
    if (!this.world.equals(avatarWorld)) {
      this.world.copy(avatarWorld);
      this.matrix.copy(avatarWorld).invert().premultiply(FLIP);
    }
    return this.matrix;
  }
}

function integers(data: Uint32Array, rows: number): DataTexture {
  const texture = new DataTexture(data, TEXTURE_WIDTH, rows, RGBAIntegerFormat, UnsignedIntType);
  texture.internalFormat = "RGBA32UI";
  texture.minFilter = texture.magFilter = NearestFilter;
  texture.needsUpdate = true;
  return texture;
}

/** What of a splat never changes, one texel: face; rotation; scales (three of 16 bits) and opacity. */
function fixedPart(file: AvatarFile, rows: number): Uint32Array {
  const out = new Uint32Array(rows * TEXTURE_WIDTH * 4);
  const face = file.raw("splat_face"), quat = file.raw("splat_quat");
  const scale = file.raw("splat_log_scale"), opacity = file.raw("splat_opacity");
  for (let i = 0; i < face.length; i++) {
    out[i * 4] = face[i]!;
    out[i * 4 + 1] = quat[i]!;
    out[i * 4 + 2] = scale[i * 3]! | (scale[i * 3 + 1]! << 16);
    out[i * 4 + 3] = scale[i * 3 + 2]! | (opacity[i]! << 16);
  }
  return out;
}

function bytesAsTexels(bytes: ArrayLike<number>, width: number, rows: number): Uint32Array {
  const out = new Uint32Array(rows * TEXTURE_WIDTH * 4);
  for (let i = 0; i < bytes.length; i++) {
    const k = i % width;
    out[Math.floor(i / width) * 4 + (k >> 2)]! |= bytes[i]! << ((k & 3) * 8);
  }
  return out;
}
