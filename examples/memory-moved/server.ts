/**
 * Alone (`node examples/memory-moved/server.ts`) it goes on with the file of the server that it replaces, $MEMORY_FILE_PATH. Inside the
 * gateway, by `drawbridge.yaml` beside this file, each person has a file of their own below $MEMORY_FOLDER.
 */
import { hash } from "node:crypto";
import { join, resolve } from "node:path";
import { memoryServer } from "./memory.ts";

const file = resolve(process.env["MEMORY_FILE_PATH"] ?? ".drawbridge/memory.jsonl");
const folder = resolve(process.env["MEMORY_FOLDER"] ?? ".drawbridge/memory");

// A subject may hold anything: its hash is the name.
export const memory = memoryServer(
  import.meta.main ? () => file : (subject) => join(folder, `${hash("sha256", subject)}.jsonl`),
);

if (import.meta.main) await memory.stdio();
