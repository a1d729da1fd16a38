// Validates an AsyncAPI document: `node validate.mjs FILE`. Every finding counts, warnings as well.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const [file] = process.argv.slice(2);
const { document, diagnostics } = await new Parser().parse(readFileSync(file, "utf8"));
for (const { path, code, message } of diagnostics) {
  console.error(`${file}: ${path.join(".")}: ${message} (${code})`);
}
if (!document || diagnostics.length > 0) process.exit(1);
console.log(`${file}: AsyncAPI ${document.version()}, ${document.messages().length} messages, valid`);
