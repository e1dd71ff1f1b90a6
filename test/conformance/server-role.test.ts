/** The official suite through the gateway: clients of both revisions, servers of both eras over both transports. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type World, world } from "../e2e/world.ts";
import { type Fixture, fixtureCommand, startFixture } from "../fixtures/processes.ts";
import { expectedOf, expectedScore, foundScore, type Pairing, surprises } from "./baseline.ts";
import { requiredOfServers, testServer } from "./suite.ts";
import { type TokenProxy, tokenProxy } from "./token-proxy.ts";

describe.each([
  ["HTTP", "legacy"],
  ["HTTP", "modern"],
  ["stdio", "legacy"],
  ["stdio", "modern"],
] as const)("through the gateway, to a server over %s that speaks %s", (transport, upstream) => {
  let fixture: Fixture | undefined;
  let one: World;
  let proxy: TokenProxy;

  beforeAll(async () => {
    if (transport === "HTTP") fixture = await startFixture("everything/http", ["--era", upstream]);
    const command = fixtureCommand("everything/stdio", ["--era", upstream]);
    // The suite leaves questions unanswered; each keeps a process of its own for a while.
    const server = fixture ? { url: `${fixture.origin}/mcp` } : { command, processes: { max: 16 } };
    one = await world({ servers: { everything: server } });
    proxy = await tokenProxy(one.url, (await one.tokens()).access_token);
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await one?.[Symbol.asyncDispose]();
    await fixture?.stop();
  });

  test.each(["2025-11-25", "2026-07-28"] as const)("a client of %s finds what the baseline says", async (client) => {
    const pairing: Pairing = { client, upstream, transport };
    const { scored } = requiredOfServers(client);
    const findings = await testServer(proxy.url, client);
    const score = foundScore(findings, scored);
    console.log(`| ${client} | ${upstream} | ${transport} | ${score} |`);
    expect(surprises(findings, expectedOf(pairing))).toEqual([]);
    expect(score).toBe(expectedScore(pairing, scored));
  });
});
