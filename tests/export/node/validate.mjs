// Khronos' validator: prints its report as JSON.
import fs from "node:fs";
import validator from "gltf-validator";

const report = await validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[2])), { maxIssues: 0 });
console.log(JSON.stringify(report.issues));
