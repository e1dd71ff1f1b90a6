/** The official suite against our authorization server: a person signs in and allows the client, as in a browser. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type World, world } from "../e2e/world.ts";
import { fixtureCommand, freePort } from "../fixtures/processes.ts";
import { Browser, PASSWORD } from "../oauth/support.ts";
import { surprises } from "./baseline.ts";
import { testAuthorizationServer } from "./suite.ts";

describe.each([
  ["at its origin", ""],
  ["below a path", "/teams/blue"],
])("an issuer %s", (_, path) => {
  let one: World;
  let port: number;

  beforeAll(async () => {
    port = await freePort();
    const listen = { port: path === "" ? 0 : await freePort() };
    one = await world({
      ...(path === "" ? {} : { publicUrl: `http://127.0.0.1:${listen.port}${path}` }),
      listen,
      servers: { everything: { command: fixtureCommand("everything/stdio") } },
      clients: {
        preregistered: [
          { id: "suite", name: "Conformance suite", redirectUris: [`http://127.0.0.1:${port}/callback`] },
        ],
      },
    });
  });
  afterAll(async () => {
    await one?.[Symbol.asyncDispose]();
  });

  test.each(["2025-11-25", "2026-07-28"] as const)("passes every check of %s", async (revision) => {
    const walk = async (authorizationUrl: string) => {
      const browser = new Browser(one.origin);
      await browser.go(authorizationUrl);
      let end = await browser.submit({ name: "olive", password: PASSWORD });
      // Who allowed it once is not asked again.
      if (end === undefined) end = await browser.submit({ answer: "allow" });
      if (end === undefined) throw new Error(`no way back to the client: ${browser.last.status} ${browser.last.text}`);
      await fetch(end);
    };
    const issuer = one.gateway.publicUrl;
    const findings = await testAuthorizationServer({
      issuer,
      client: "suite",
      port,
      resource: one.url,
      revision,
      walk,
    });
    expect(surprises(findings, [])).toEqual([]);
    const passed = [...findings.scenarios.values()].map(({ passed, total }) => `${passed}/${total}`);
    expect(passed).toEqual(["2/2", "1/1"]);
  });
});
