/** Further scopes for classes of tools: refused with what is missing, asked for, allowed by a person, and then called, in both eras. */
import { afterEach, describe, expect, test } from "vitest";
import { fixtureCommand } from "../fixtures/processes.ts";
import { filed } from "../gateway/filed.ts";
import { claimsOf, host, type Kept, olive, type Place, SECRET, v1, v2, wholeGateway } from "../oauth/sdk-clients.ts";
import { authorizeUrl, type Running, register } from "../oauth/support.ts";
import { modernRequest, type World, world } from "./world.ts";

const servers = { shop: { command: fixtureCommand("echo-stdio") } };
const tools = {
  "shop.echo": { from: "shop/echo", input: { text: { maxLength: 100 } }, access: "destructive" },
  "shop.count": { from: "shop/count", access: "read" },
  "shop.slow": { from: "shop/slow", access: "write" },
};
const stepUp = {
  "access:destructive": { scope: "shop:destroy", title: "Destroy things", description: "Whatever you could destroy." },
  "tool:shop.*": "shop:use",
};

const open: AsyncDisposable[] = [];
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one[Symbol.asyncDispose]();
});
const start = async (settings: Record<string, unknown> = {}): Promise<World> => {
  const one = await world({ servers, tools, stepUp, ...settings });
  open.push(one);
  return one;
};

type Sent = [body: object, headers: Record<string, string>];
const legacy = (name: string, args: object = { text: "hi" }): Sent => [
  { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: args } },
  { "mcp-protocol-version": "2025-11-25" },
];
const modern = (name: string, args: object = { text: "hi" }) => modernRequest("tools/call", { name, arguments: args });
const challengeOf = (response: Response) => response.headers.get("www-authenticate") ?? "";
const scopesIn = (challenge: string) => /scope="([^"]*)"/.exec(challenge)?.[1]?.split(" ").sort();

describe.each<[string, (name: string, args?: object) => Sent]>([
  ["2025-11-25", legacy],
  ["2026-07-28", modern],
])("a call of %s", (_era, call) => {
  test("without the scope is answered with 403 and a challenge that names what it has and what it lacks", async () => {
    const w = await start();
    const { access_token: token } = await w.tokens();
    const response = await w.post(...call("shop.echo"), token);
    expect(response.status).toBe(403);
    const challenge = challengeOf(response);
    expect(challenge).toContain('error="insufficient_scope"');
    expect(challenge).toContain("/.well-known/oauth-protected-resource/mcp");
    expect(scopesIn(challenge)).toEqual(["mcp:call", "mcp:read", "shop:destroy", "shop:use"]);
    expect(challenge).toContain("This needs the scope shop:destroy and the scope shop:use.");
    const other = await w.post(...call("shop.count", {}), token);
    expect([other.status, scopesIn(challengeOf(other))]).toEqual([403, ["mcp:call", "mcp:read", "shop:use"]]);
  });

  test("passes with it, and one that lacks only a part is told only of that", async () => {
    const w = await start();
    const { access_token: some } = await w.tokens({ scope: "mcp:read mcp:call shop:use" });
    expect((await w.post(...call("shop.count", {}), some)).status).toBe(200);
    const refused = await w.post(...call("shop.echo"), some);
    expect(refused.status).toBe(403);
    expect(challengeOf(refused)).toContain('error_description="This needs the scope shop:destroy."');
    const { access_token: all } = await w.tokens({ scope: "mcp:read mcp:call shop:use shop:destroy" });
    expect(await (await w.post(...call("shop.echo"), all)).text()).toContain('"text":"hi"');
  });

  test("needs each scope of a list", async () => {
    const w = await start({ stepUp: { "tool:shop.count": ["shop:use", { scope: "shop:count", title: "Count" }] } });
    const { access_token: some } = await w.tokens({ scope: "mcp:read mcp:call shop:use" });
    const refused = await w.post(...call("shop.count", {}), some);
    expect([refused.status, challengeOf(refused)]).toEqual([
      403,
      expect.stringContaining("needs the scope shop:count."),
    ]);
    const { access_token: all } = await w.tokens({ scope: "mcp:read mcp:call shop:use shop:count" });
    expect((await w.post(...call("shop.count", {}), all)).status).toBe(200);
  });

  test("of what the caller may not use says nothing of scopes", async () => {
    const w = await start({ roles: { owner: { may: ["shop.count"] } }, assign: [{ role: "owner", group: "owner" }] });
    const { access_token: token } = await w.tokens();
    const [secret, nothing] = await Promise.all(
      ["shop.echo", "shop.nothing"].map((name) => w.post(...call(name), token)),
    );
    expect([secret?.status, nothing?.status]).toEqual([200, 200]);
    const [one, other] = [await secret?.text(), await nothing?.text()];
    expect(one?.replaceAll("shop.echo", "X")).toBe(other?.replaceAll("shop.nothing", "X"));
  });
});

test("lists show what needs more", async () => {
  const w = await start();
  const client = await w.modern();
  expect((await client.listTools()).tools.map(({ name }) => name).sort()).toEqual([
    "shop.count",
    "shop.echo",
    "shop.slow",
  ]);
});

test("the authorization server offers the scopes; nobody gets them who does not name them", async () => {
  const w = await start();
  const metadata = (await (await fetch(`${w.origin}/.well-known/oauth-authorization-server`)).json()) as {
    scopes_supported: string[];
  };
  expect(metadata.scopes_supported).toEqual(
    expect.arrayContaining(["mcp:read", "mcp:call", "shop:destroy", "shop:use"]),
  );
  // What a client asks for first of all is the least that is of use (MCP, Authorization, Scope Selection Strategy).
  const resource = (await (await fetch(`${w.origin}/.well-known/oauth-protected-resource/mcp`)).json()) as {
    scopes_supported: string[];
  };
  expect(resource.scopes_supported).toEqual(["mcp:read", "mcp:call"]);
  const all = await w.tokens({ scope: "openid" });
  expect(String((all as { scope?: string }).scope)).not.toContain("shop:");
});

test("the consent page says what each allows, and a person may leave one out", async () => {
  const w = await start();
  const place = { base: w.gateway.publicUrl, origin: w.origin, resource: w.url } as Running;
  const client = String((await register(place)).body["client_id"]);
  await w.browser.go(authorizeUrl(place, { client, scope: "mcp:call shop:use shop:destroy" }));
  const { text } = w.browser.last;
  expect(text).toContain("<b>Destroy things</b> <span>Whatever you could destroy.</span>");
  expect(text).toContain("<b>Do more: shop:use</b> <span>Call tools: shop.*. As far as you may yourself.</span>");
  const first = await w.tokens({ scope: "mcp:read mcp:call shop:use shop:destroy", without: ["shop:destroy"] });
  expect((await w.post(...modern("shop.count", {}), first.access_token)).status).toBe(200);
  expect((await w.post(...modern("shop.echo"), first.access_token)).status).toBe(403);
});

test("a service may have them where its settings say so, and a name that is no scope is found in the settings", async () => {
  const place = (scopes: string[]) =>
    wholeGateway(
      (secret) =>
        ({
          clients: {
            preregistered: [{ id: "nightly", name: "Nightly", secret, service: { groups: ["owner"], scopes } }],
          },
          stepUp: { echo: "echo:use" },
        }) as never,
    );
  await expect(place(["mcp:call", "echo:us"])).rejects.toThrow(
    /service\.scopes\.1: "echo:us" is no scope; there are .*echo:use/,
  );
  const called = async (scopes: string[]) => {
    const at = await place(scopes);
    open.push(at);
    const answer = await fetch(`${at.origin}/oauth/token`, {
      method: "POST",
      body: new URLSearchParams({ grant_type: "client_credentials", client_id: "nightly", client_secret: SECRET }),
    });
    const { access_token: token } = (await answer.json()) as { access_token: string };
    const [body, headers] = modern("echo");
    const json = { "content-type": "application/json", accept: "application/json, text/event-stream" };
    const sent = { ...headers, ...json, authorization: `Bearer ${token}` };
    return (await fetch(at.url, { method: "POST", headers: sent, body: JSON.stringify(body) })).status;
  };
  expect([await called(["mcp:call", "echo:use"]), await called(["mcp:call"])]).toEqual([200, 403]);
});

test("a changed setting counts at once: for calls, for the authorization server and on its pages", async () => {
  const at = await filed({ servers, tools });
  open.push(at);
  expect((await at.call("shop.count")).error).toBeUndefined();
  at.write({ stepUp: { "shop.count": "shop:count" } });
  expect(await at.reloaded()).toContain("stepUp changed");
  expect(await at.call("shop.count")).toMatchObject({ status: 403 });
  const { access_token: token } = await at.world.tokens({ scope: "mcp:read mcp:call shop:count" });
  const [body, headers] = legacy("shop.count", {});
  expect((await at.world.post(body, headers, token)).status).toBe(200);
  at.write({ stepUp: undefined });
  expect(await at.reloaded()).toContain("stepUp changed");
  expect((await at.call("shop.count")).error).toBeUndefined();
});

describe("SDK clients step up by themselves", () => {
  const place = async (): Promise<Place> => {
    const made = await wholeGateway(
      () => ({ clients: { registration: "open" }, stepUp: { echo: "echo:use" } }) as never,
    );
    open.push(made);
    return made;
  };

  test("v2.4 asks its person for what is missing beside what it has, and calls", async () => {
    const at = await place();
    const { kept, provider } = host();
    const client = await v2.connect(provider, kept, at, { person: olive(at) });
    expect(scopes(await claimsOf(provider))).toEqual(["mcp:call", "mcp:read"]);
    await expect(client.echo("too early")).rejects.toThrow(/Unauthorized/);
    await client.answer();
    expect(kept.redirected).toHaveLength(2);
    expect(await client.echo("now")).toBe("now");
    expect(scopes(await claimsOf(provider))).toEqual(["echo:use", "mcp:call", "mcp:read"]);
    await client.close();
  });

  test("v1.32 does, too, where its host keeps no refresh token", async () => {
    const at = await place();
    const { kept, provider } = host({
      saveTokens: ({ refresh_token: _, ...tokens }: NonNullable<Kept["tokens"]>) => {
        kept.tokens = tokens;
      },
    });
    const client = await v1.connect(provider, kept, at, { person: olive(at) });
    await expect(client.echo("too early")).rejects.toThrow(/Unauthorized/);
    await client.answer();
    expect(await client.echo("now")).toBe("now");
    expect(scopes(await claimsOf(provider))).toContain("echo:use");
    await client.close();
  });
});

function scopes(claims: Record<string, unknown>): string[] {
  return String(claims["scope"]).split(" ").sort();
}
