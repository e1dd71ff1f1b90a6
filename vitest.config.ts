import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/global/setup.ts"],
    pool: "forks",
    // Many tests start processes and browsers of their own: two files at once keep a small machine honest.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    reporters: process.env["CI"] ? ["dot"] : ["default"],
  },
});
