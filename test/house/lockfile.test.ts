/** `npm ci` works from a clean clone, on every platform. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { root } from "./sources.ts";

interface Locked {
  readonly version?: string;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly hasInstallScript?: boolean;
}
const { packages } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
  packages: Readonly<Record<string, Locked>>;
};

// npm leaves out of the lock what it could not find when the lock was written, and `npm ci` then refuses to install anything.
test("the lock has every optional package of every platform, not only of the machine that wrote it", () => {
  const missing = Object.entries(packages).flatMap(([place, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).filter(
      (name) =>
        packages[`${place}/node_modules/${name}`] === undefined && packages[`node_modules/${name}`] === undefined,
    ),
  );
  expect(missing).toEqual([]);
});

test("no package that is installed runs a script of its own", () => {
  expect(Object.entries(packages).flatMap(([place, one]) => (one.hasInstallScript === true ? [place] : []))).toEqual(
    [],
  );
});
