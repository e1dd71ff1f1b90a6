/** `drawbridge clients`, beside a running gateway. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { KnownClient } from "../../src/oauth/administration.ts";
import { connect, type DocumentHost, documentHost, register } from "../oauth/support.ts";
import { type Operated, operated, until } from "./operated.ts";

let host: DocumentHost;
let here: Operated;
beforeAll(async () => {
  host = await documentHost();
  here = await operated({
    clients: {
      registration: "open",
      metadataDocuments: host.settings,
      preregistered: [{ id: "desk", name: "Help desk", redirectUris: ["https://desk.example/cb"] }],
    },
  });
});
afterAll(async () => {
  await here[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

const place = () =>
  ({ origin: here.live.origin, base: here.live.gateway.publicUrl, resource: here.live.url }) as Parameters<
    typeof connect
  >[0];

test("clients are listed by the way they came, with what they were given", async () => {
  const document = host.publish("/listed.json", { client_name: "Listed" });
  await connect(place(), here.live.browser, { client: document });
  const { client } = await here.live.tokens();
  const clients = await here.json<KnownClient[]>(["clients", "list"]);
  expect(clients.find(({ id }) => id === document)).toMatchObject({
    knownBy: "document",
    name: "Listed",
    grants: 1,
    people: 1,
  });
  expect(clients.find(({ id }) => id === client)).toMatchObject({
    knownBy: "registration",
    grants: 1,
    disabled: false,
  });
  expect(clients.find(({ id }) => id === "desk")).toMatchObject({ knownBy: "settings", grants: 0 });
  const { stdout } = await here.cli(["clients", "list"]);
  expect(stdout).toMatch(/^NAME +KNOWN BY +STATE/);
  expect(stdout).toMatch(/Help desk +settings file +active/);
});

test("a client is shown with who let it in and the hash that pins its document", async () => {
  const document = host.publish("/shown.json", { client_name: "Shown" });
  await connect(place(), here.live.browser, { client: document });
  const { stdout, code } = await here.cli(["clients", "show", "Shown"]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/trust +people are asked, with a warning\n/);
  expect(stdout).toMatch(/document +[0-9a-f]{64}\n/);
  expect(stdout).toMatch(/Let in by:\n +olive +mcp:read mcp:call/);
});

test("a disabled client is refused by the running gateway within a second, and taken again when enabled", async () => {
  const { client, access_token } = await here.live.tokens();
  expect(await here.status(access_token)).toBe(200);
  expect(await here.cli(["clients", "disable", client])).toMatchObject({ code: 0 });
  expect(await until(async () => (await here.status(access_token)) === 401)).toBeLessThan(1000);
  expect(await here.json<KnownClient>(["clients", "show", client])).toMatchObject({ disabled: true });
  expect(await here.recorded("client-administered")).toMatchObject({
    change: "disabled",
    operator: expect.any(String),
  });
  await here.cli(["clients", "enable", client]);
  await until(async () => (await here.status(access_token)) === 200);
});

test("a client that nobody has seen yet can be disabled by the URL of its document", async () => {
  const document = host.publish("/never.json");
  expect(await here.cli(["clients", "disable", document])).toMatchObject({ code: 0 });
  await expect(connect(place(), here.live.browser, { client: document })).rejects.toThrow();
  expect(await here.cli(["clients", "disable", "nobody"])).toMatchObject({ code: 1 });
});

test("a removed client has lost its tokens and its registration", async () => {
  const { client, access_token } = await here.live.tokens();
  expect(await here.cli(["clients", "remove", client, "--yes"])).toMatchObject({
    code: 0,
    stdout: `removed ${client}; ended 1 grant\n`,
  });
  expect(await until(async () => (await here.status(access_token)) === 401)).toBeLessThan(1000);
  await expect(connect(place(), here.live.browser, { client })).rejects.toThrow();
  expect(await here.cli(["clients", "remove", "desk"])).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("settings file"),
  });
});

test("the beginning of an id is enough when it fits one client", async () => {
  const [one, two] = [await register(place()), await register(place())].map(({ body }) => String(body["client_id"]));
  const ambiguous = await here.cli(["clients", "show", "registered-"]);
  expect(ambiguous).toMatchObject({ code: 1, stderr: expect.stringContaining("Write more of the id") });
  expect(await here.json<KnownClient>(["clients", "show", one ?? ""])).toMatchObject({ id: one });
  expect(one).not.toBe(two);
});

test("tokens for registration are shown once, listed without their secret, and revoked", async () => {
  const made = await here.json<{ id: string; token: string }>(["clients", "token", "--uses", "2", "--note", "agents"]);
  const { stdout } = await here.cli(["clients", "token", "--list"]);
  expect(stdout).toMatch(new RegExp(`${made.id} +2 .*agents`));
  expect(stdout).not.toContain(made.token);
  expect((await here.cli(["clients", "token"])).stdout).toContain("Set it to initial-access-token");
  expect(await here.cli(["clients", "token", "--revoke", made.id])).toMatchObject({ code: 0 });
  expect(await here.cli(["clients", "token", "--revoke", made.id])).toMatchObject({ code: 1 });
  expect(await here.cli(["clients", "token", "--uses", "0"])).toMatchObject({ code: 2 });
});
