// Builds `dist`, which is committed: one script, one style sheet, one page. `--check` says whether it is what is committed. Beside it,
// `built-from` has the hashes of what it was built from and of what came of it: so a test that has no npm finds what is stale.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
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

/** What `dist` depends on, beside the packages that the lock file names. */
const sources = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json"];
for (const entry of await readdir(join(here, "src"), { recursive: true, withFileTypes: true })) {
  if (entry.isFile()) sources.push(join(relative(here, entry.parentPath), entry.name).replaceAll("\\", "/"));
}

/** SHA-256 over names, lengths and contents, in the order of the names. */
async function hashed(named) {
  const hash = createHash("sha256");
  for (const [name, contents] of [...named].sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(`${name}\n${contents.length}\n`).update(contents);
  }
  return hash.digest("hex");
}
const read = await Promise.all(sources.map(async (name) => [name, await readFile(join(here, name))]));
const builtFrom = `sources ${await hashed(read)}\ndist ${await hashed(files)}\n`;

if (process.argv.includes("--check")) {
  const there = new Set(await readdir(dist));
  const differs = [];
  for (const [name, contents] of files) {
    const same = there.delete(name) && contents.equals(await readFile(join(dist, name)));
    if (!same) differs.push(name);
  }
  differs.push(...there);
  if ((await readFile(join(here, "built-from"), "utf8").catch(() => "")) !== builtFrom) differs.push("built-from");
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
  await writeFile(join(here, "built-from"), builtFrom);
}
