// three.js as a foreign reader: plays the animation of a .glb to a time and prints what the mesh and the splats are.
import fs from "node:fs";
import { AnimationMixer, Vector3 } from "three";
globalThis.self = globalThis; // the loader is made for browsers
const { GLTFLoader } = await import("three/examples/jsm/loaders/GLTFLoader.js");

const [file, seconds] = process.argv.slice(2);
const bytes = fs.readFileSync(file);
const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
const gltf = await new GLTFLoader().parseAsync(buffer, "");
const mixer = new AnimationMixer(gltf.scene);
mixer.clipAction(gltf.animations[0]).play();
mixer.setTime(Number(seconds));
gltf.scene.updateMatrixWorld(true);

const mesh = gltf.scene.getObjectByName("head_mesh");
mesh.skeleton.update();
const point = new Vector3();
const verts = [];
for (let i = 0; i < mesh.geometry.attributes.position.count; i += 7) {
    mesh.getVertexPosition(i, point).applyMatrix4(mesh.matrixWorld);
    verts.push([point.x, point.y, point.z]);
}
const cloud = gltf.scene.getObjectByName("head_splats");
console.log(
    JSON.stringify({
        verts,
        targets: Object.keys(mesh.morphTargetDictionary),
        bones: mesh.skeleton.bones.map((bone) => bone.name),
        points: Array.from(cloud.geometry.attributes.position.array),
        duration: gltf.animations[0].duration,
    }),
);
