/** `credentials` of a server and the settings it must agree with. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { loadSettings } from "../../src/config/load.ts";
import { problemText, SettingsProblems } from "../../src/config/problems.ts";

const folder = mkdtempSync(join(tmpdir(), "drawbridge-config-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function problems(text: string): Promise<string> {
  const file = join(folder, "drawbridge.yaml");
  writeFileSync(file, text);
  const thrown: unknown = await loadSettings(file, { env: { TOKEN: "t", SECRET: "s" } }).catch(
    (error: unknown) => error,
  );
  return thrown instanceof SettingsProblems ? thrown.problems.map(problemText).join("\n") : "";
}

test("an Authorization header beside credentials is refused, however it is written", async () => {
  for (const header of ["Authorization", "authorization", "AUTHORIZATION"]) {
    const server = `{ url: 'https://a.example/mcp', credentials: exchange, headers: { ${header}: '\${env:TOKEN}' } }`;
    expect(await problems(`servers: { a: ${server} }\n`)).toMatch(
      new RegExp(`servers\\.a\\.headers\\.${header}.* must go, because`),
    );
  }
  const other = "{ url: 'https://a.example/mcp', credentials: exchange, headers: { X-Team: blue } }";
  expect(await problems(`servers: { a: ${other} }\n`)).toBe("");
});

test("an authorization server of others needs to know the gateway before it exchanges tokens for it", async () => {
  const server = "servers: { a: { url: 'https://a.example/mcp', credentials: exchange } }\n";
  expect(await problems(`${server}authorization: { issuer: https://login.example }\n`)).toMatch(
    /servers\.a\.credentials.*needs authorization\.exchange/,
  );
  const known = "exchange: { clientId: drawbridge, clientSecret: '${env:SECRET}' }";
  expect(await problems(`${server}authorization: { issuer: https://login.example, ${known} }\n`)).toBe("");
});

test("people connect accounts only where this gateway signs them in; the operator does so anywhere", async () => {
  const server = (of: string) => `servers: { a: { url: 'https://a.example/mcp', credentials: { oauth: ${of} } } }\n`;
  const elsewhere = "authorization: { issuer: https://login.example }\n";
  expect(await problems(`${server("per-user")}${elsewhere}`)).toMatch(
    /servers\.a\.credentials\.oauth\.of.*cannot be per-user beside authorization/,
  );
  expect(await problems(`${server("operator")}${elsewhere}`)).toBe("");
  expect(await problems(server("per-user"))).toBe("");
});

test("a client secret without its client, and an issuer in the clear, are refused", async () => {
  const server = (more: string) =>
    `servers: { a: { url: 'https://a.example/mcp', credentials: { oauth: { of: per-user, ${more} } } } }\n`;
  expect(await problems(server("clientSecret: '${env:SECRET}'"))).toMatch(/clientSecret.*needs clientId/);
  expect(await problems(server("issuer: 'http://login.example'"))).toMatch(/issuer.*must be https/);
  expect(await problems(server("issuer: 'http://127.0.0.1:9000'"))).toBe("");
});

test("a server without a url is told that its credentials must name the API behind it, whatever else they say", async () => {
  for (const server of ["command: [node, a.ts]", "module: a.ts"]) {
    for (const written of [
      "exchange",
      "{ exchange: }",
      "{ exchange: {} }",
      "{ exchange: { scopes: [a] } }",
      "true",
      "{ }",
    ]) {
      const said = await problems(`servers: { a: { ${server}, credentials: ${written} } }\n`);
      expect(said).toMatch(/servers\.a\.credentials\S*: must name the API behind the server.*audience: https/);
      expect(said.split("\n")).toHaveLength(1);
    }
  }
  const stdio = (credentials: string) => problems(`servers: { a: { command: [node], credentials: ${credentials} } }\n`);
  expect(await stdio("{ exchange: { audience: parcels } }")).toMatch(/exchange\.audience: expected a URL/);
  expect(await stdio("{ oauth: per-user }")).toMatch(/servers\.a\.credentials/);
  expect(await stdio("{ exchange: { audience: 'https://a.example', scope: [a] } }")).toMatch(/did you mean "scopes"/);
  expect(await stdio("{ exchange: { audience: 'https://a.example', scopes: { 'mcp:read': [a] } } }")).toBe("");
});

test("a server without a url needs an authorization server of others to know the gateway, too", async () => {
  const server = "servers: { a: { command: [node], credentials: { exchange: { audience: 'https://a.example' } } } }\n";
  expect(await problems(`${server}authorization: { issuer: https://login.example }\n`)).toMatch(
    /servers\.a\.credentials.*needs authorization\.exchange/,
  );
});
