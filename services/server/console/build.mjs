// Builds `dist`, which is committed: one script, one style sheet, one page. `--check` says whether it is what is committed.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");

const built = await build({
  absWorkingDir: here,
  entryPoints: { console: "src/main.tsx", style: "src/style.css" },
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022", "chrome123", "firefox120", "safari17.5"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  outdir: dist,
  write: false,
});

/** Each file with a hash of what is in it in its name, so that it can be kept for ever. */
const files = new Map();
const names = {};
for (const { path, contents } of built.outputFiles) {
  const [stem, kind] = path.split(/[\\/]/).pop().split(".");
  const name = `${stem}-${createHash("sha256").update(contents).digest("hex").slice(0, 12)}.${kind}`;
  names[`${stem}.${kind}`] = name;
  files.set(name, Buffer.from(contents));
}
const page = (await readFile(join(here, "src/index.html"), "utf8")).replace(/\{\{(.+?)\}\}/g, (_, name) => names[name]);
files.set("index.html", Buffer.from(page));
const licences = [];
for (const name of ["preact", "@preact/signals", "@preact/signals-core"]) {
  licences.push(`${name}\n\n${await readFile(join(here, "node_modules", name, "LICENSE"), "utf8")}`);
}
files.set("licences.txt", Buffer.from(licences.join("\n----\n\n")));

if (process.argv.includes("--check")) {
  const there = new Set(await readdir(dist));
  const differs = [];
  for (const [name, contents] of files) {
    const same = there.delete(name) && contents.equals(await readFile(join(dist, name)));
    if (!same) differs.push(name);
  }
  differs.push(...there);
  if (differs.length > 0) {
    console.error(`dist is not what src builds (${differs.join(", ")}); run npm run build`);
    process.exit(1);
  }
  console.log("dist is what src builds");
} else {
  await rm(dist, { recursive: true, force: true });
  await mkdir(dist);
  for (const [name, contents] of files) {
    await writeFile(join(dist, name), contents);
    console.log(`${name} ${contents.length}`);
  }
}
