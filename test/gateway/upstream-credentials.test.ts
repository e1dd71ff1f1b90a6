/** What an upstream's credentials are made of. What they do on the way is in test/e2e and test/attacks. */
import { expect, test } from "vitest";
import type { Authenticated } from "../../src/core/call.ts";
import { Secret } from "../../src/core/secret.ts";
import { type Exchanger, exchangeTarget, upstreamCredentials } from "../../src/gateway/upstream-credentials.ts";
import { httpServer, stdioServer } from "../../src/upstream/settings.ts";

const never = new AbortController().signal;
const ann = { subject: "ann", client: "c", scopes: ["mcp:call"] } as unknown as Authenticated;
const asking = httpServer.parse({ url: "https://api.example/mcp", credentials: "exchange" });

function exchanger(text: string) {
  const asked: unknown[] = [];
  const given = { token: new Secret(text), expiresAt: 0 };
  const made = {
    exchange: (...args: unknown[]) => {
      asked.push(args);
      return Promise.resolve(given);
    },
    metadata: { scopes: [] },
  };
  return { made: made as unknown as Exchanger, given, asked };
}

test.each([
  ["https://API.example:443/mcp", "https://api.example/mcp"],
  ["https://api.example/", "https://api.example"],
  ["https://api.example/mcp/", "https://api.example/mcp/"],
  ["https://api.example/mcp?key=secret#part", "https://api.example/mcp"],
])("the audience of %s is %s, and holds no key", (url, audience) => {
  expect(exchangeTarget(url, "exchange")).toEqual({ audience, scopes: undefined });
  expect(exchangeTarget(url, { exchange: { audience: "urn:api" } }).audience).toBe("urn:api");
});

test("only a server whose settings ask for credentials has any", () => {
  const { made } = exchanger("t");
  for (const settings of [stdioServer.parse({ command: ["x"] }), httpServer.parse({ url: "https://api.example/mcp" })])
    expect(upstreamCredentials("s", settings, () => made)).toBeUndefined();
});

test("a token is named by its jti where it has one, and told back to whoever made it when it was turned away", async () => {
  const claims = Buffer.from(JSON.stringify({ jti: "0199-7" })).toString("base64url");
  const { made, given, asked } = exchanger(`h.${claims}.s`);
  const credentials = upstreamCredentials("s", asking, () => made);
  const first = await credentials?.for(ann, never);
  expect(first).toMatchObject({ header: "authorization", id: "0199-7", audience: "https://api.example/mcp" });
  expect(JSON.stringify(first)).not.toContain(claims);
  await credentials?.for(ann, never, first);
  expect(asked.map((args) => (args as unknown[])[3])).toEqual([undefined, given.token]);

  const opaque = await upstreamCredentials("s", asking, () => exchanger("opaque").made)?.for(ann, never);
  expect(opaque?.id).toBeUndefined();
});

test("before there is an authority, a server with credentials is unavailable", async () => {
  const early = upstreamCredentials("s", asking, () => undefined);
  await expect(early?.for(ann, never)).rejects.toMatchObject({ code: "upstream_unavailable" });
  await expect(early?.own(never)).rejects.toMatchObject({ code: "upstream_unavailable" });
});
