/**
 * Keeps what V8 made of the modules of this process, and Node of their types, for the next start: `node --import
 * drawbridge-mcp/compile-cache server.ts`. What lies there is run as code without a look at where it came from, so it is kept where
 * nobody but the user can write, never in the folder for temporary files that Node would take. Where there is no such place, nothing
 * is kept and the start takes longer. Written for any Node from 14 up, as the launcher is.
 */
import { lstatSync, mkdirSync } from "node:fs";
import * as nodeModule from "node:module";
import { homedir } from "node:os";
import { join } from "node:path";

keep();

function keep() {
  // Who set this has said where.
  if (typeof nodeModule.enableCompileCache !== "function" || process.env.NODE_COMPILE_CACHE) return;
  const folder = ownFolder();
  if (folder !== undefined) nodeModule.enableCompileCache(folder);
}

function ownFolder() {
  try {
    const folder = join(cacheHome(), "drawbridge", "compiled");
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    // Each on the way below the home that we made, or others might have made for us.
    for (const made of [join(folder, ".."), folder]) {
      const found = lstatSync(made);
      const mine = process.getuid === undefined || (found.uid === process.getuid() && (found.mode & 0o022) === 0);
      if (!found.isDirectory() || !mine) return undefined;
    }
    return folder;
  } catch {
    return undefined; // A home that is not there, or cannot be written to: of containers, of services.
  }
}

function cacheHome() {
  const { XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  if (process.platform === "win32") return LOCALAPPDATA || join(homedir(), "AppData", "Local");
  if (process.platform === "darwin") return join(homedir(), "Library", "Caches");
  // The XDG Base Directory Specification has relative paths ignored.
  return XDG_CACHE_HOME?.startsWith("/") ? XDG_CACHE_HOME : join(homedir(), ".cache");
}
