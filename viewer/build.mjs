// Builds the player: node build.mjs [OUT]. Without OUT it writes ../gsth/export/assets/player.js.
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, "../gsth/export/assets/player.js");
mkdirSync(join(here, "build"), { recursive: true });
const flags = ["--enable", "simd", "-O3", "--noAssert", "--runtime", "stub", "--importMemory", "--initialMemory", "1"];
const asc = join(here, "node_modules/assemblyscript/bin/asc.js");
execFileSync(process.execPath, [asc, "assembly/kernels.ts", ...flags, "-o", "build/kernels.wasm"], { cwd: here });
await build({
  absWorkingDir: here,
  entryPoints: ["src/index.ts"],
  outfile: out,
  bundle: true,
  minify: true,
  format: "iife",
  globalName: "gsth",
  target: "es2022",
  loader: { ".wasm": "binary" },
  legalComments: "inline",
});
