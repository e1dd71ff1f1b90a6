/** What all test files of one run share: servers that the first test to ask begins, and that end with the run. */
import { createServer } from "node:http";
import type { TestProject } from "vitest/node";
import { type DatabaseName, type DatabaseServer, startPostgres, startRedis } from "./databases.ts";

const STARTS = { postgres: () => startPostgres(), redis: () => startRedis() } as const satisfies Record<
  DatabaseName,
  () => Promise<DatabaseServer>
>;

/** Listens where `databases.ts` asks. Nothing is started for a run whose tests need no database. */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const started = new Map<string, Promise<DatabaseServer>>();
  const desk = createServer((request, response) => {
    const name = (request.url ?? "").slice(1);
    const start = Object.hasOwn(STARTS, name) ? STARTS[name as DatabaseName] : undefined;
    if (start === undefined) {
      response.writeHead(404).end(`no database is called ${name}`);
      return;
    }
    const server = started.get(name) ?? start();
    started.set(name, server);
    server.then(
      ({ url }) => response.end(url),
      (error: unknown) => response.writeHead(503).end(String(error)),
    );
  });
  await new Promise<void>((resolve) => desk.listen(0, "127.0.0.1", resolve));
  const address = desk.address();
  project.provide("databases", `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`);
  return async () => {
    desk.close();
    const servers = await Promise.allSettled(started.values());
    await Promise.all(
      servers.map((server) => (server.status === "fulfilled" ? server.value[Symbol.asyncDispose]() : undefined)),
    );
  };
}
