/** The connection doctor: what is ill is named at its step, and what is hostile is not followed. */
import { describe, expect, test } from "vitest";
import type { Check, Step, StepName } from "../../src/cli/doctor/examination.ts";
import { urlProblem } from "../../src/cli/doctor/http.ts";
import { type World, world } from "../e2e/world.ts";
import { documentHost } from "../oauth/support.ts";
import { operated, until } from "./operated.ts";
import { type Illness, type Json, json, patient } from "./patient.ts";
import { type RunOptions, run } from "./terminal.ts";

interface Verdict {
  readonly code: number;
  readonly ok: boolean;
  readonly brokenAt: StepName | null;
  readonly sentence: string;
  readonly steps: readonly Step[];
  /** The checks of a step that did not come out well. */
  ill(step: StepName): readonly string[];
  check(id: string): Check | undefined;
}

async function examined(argv: readonly string[], options: RunOptions = {}): Promise<Verdict> {
  const { code, stdout, stderr } = await run(["doctor", ...argv, "--json"], options);
  if (!stdout.startsWith("{")) throw new Error(`no verdict: ${stdout}${stderr}`);
  const found = JSON.parse(stdout) as Pick<Verdict, "ok" | "brokenAt" | "sentence" | "steps">;
  return {
    code,
    ...found,
    ill: (step) =>
      found.steps
        .filter((one) => one.step === step)
        .flatMap(({ checks }) => checks)
        .filter(({ outcome }) => outcome !== "ok")
        .map(({ id }) => id),
    check: (id) => found.steps.flatMap(({ checks }) => checks).find((one) => one.id === id),
  };
}

const wholeWay = ["--register", "--sign-in", "--timeout", "20"];
const drop = (name: string) => (document: Json) => ({ ...document, [name]: undefined });
const swap = (name: string, value: unknown) => (document: Json) => ({ ...document, [name]: value });
/** Answers the MCP endpoint, whatever is asked, when there is no token. */
const without = (status: number, headers: Record<string, string> = {}): Illness => ({
  answers(request, response) {
    if (request.url !== "/mcp" || request.headers.authorization !== undefined || request.method !== "POST")
      return false;
    response.writeHead(status, headers).end();
    return true;
  },
});
const at = (path: string, answer: (response: import("node:http").ServerResponse) => void): Illness => ({
  answers(request, response) {
    if (new URL(request.url ?? "/", "http://x.invalid").pathname !== path) return false;
    answer(response);
    return true;
  },
});

test("a sound server is walked from the URL to the tools, and what was made is taken back", async () => {
  await using sound = await patient();
  const verdict = await examined([sound.url, ...wholeWay]);
  expect(verdict.steps.flatMap(({ checks }) => checks).filter(({ outcome }) => outcome !== "ok")).toEqual([]);
  expect(verdict).toMatchObject({ code: 0, ok: true, brokenAt: null });
  expect(verdict.steps.map(({ outcome }) => outcome)).toEqual(Array(10).fill("ok"));
  expect(sound.asked).toContain("POST /revoke");
});

describe("an ill server", () => {
  const rows: readonly (readonly [title: string, illness: Illness, step: StepName, id: string])[] = [
    [
      "that answers everybody is shown as open",
      {
        answers: (request, response) => {
          if (request.url !== "/mcp") return false;
          json(response, 200, { jsonrpc: "2.0", id: 1, result: {} });
          return true;
        },
      },
      "challenge",
      "open",
    ],
    ["that answers 403 instead of 401", without(403), "challenge", "status-403"],
    ["that has nothing at the path", without(404), "challenge", "status-404"],
    ["that redirects", without(308, { location: "https://elsewhere.example/mcp" }), "challenge", "redirected"],
    ["that fails", without(502), "challenge", "server-error"],
    ["that does not say how to sign in", without(401), "challenge", "no-challenge"],
    ["that asks for a password", without(401, { "www-authenticate": 'Basic realm="x"' }), "challenge", "no-bearer"],
    [
      "that does not name its metadata",
      without(401, { "www-authenticate": 'Bearer realm="x"' }),
      "challenge",
      "no-resource-metadata",
    ],
    [
      "that speaks of an invalid token before there was one",
      without(401, { "www-authenticate": 'Bearer error="invalid_token"' }),
      "challenge",
      "error-without-token",
    ],
    [
      "that believes any token",
      {
        answers: (request, response) => {
          if (!String(request.headers.authorization).includes("made-up")) return false;
          json(response, 200, { jsonrpc: "2.0", id: 1, result: {} });
          return true;
        },
      },
      "challenge",
      "any-token",
    ],
    [
      "that takes tokens bound to a key only",
      without(401, { "www-authenticate": 'DPoP algs="ES256", resource_metadata="http://127.0.0.1:1/x"' }),
      "challenge",
      "dpop-only",
    ],
    [
      "that answers 200 and an error instead of 401",
      {
        answers(request, response) {
          if (request.url !== "/mcp") return false;
          json(response, 200, { jsonrpc: "2.0", id: 1, error: { code: -32001, message: "sign in" } });
          return true;
        },
      },
      "challenge",
      "no-401",
    ],
    [
      "that hangs up on what a browser asks first",
      {
        answers(request) {
          if (request.method === "OPTIONS") request.socket.destroy();
          return request.method === "OPTIONS";
        },
      },
      "browser",
      "cors",
    ],
    [
      "that hangs up on a made-up token",
      {
        answers(request) {
          const madeUp = String(request.headers.authorization).includes("made-up");
          if (madeUp) request.socket.destroy();
          return madeUp;
        },
      },
      "challenge",
      "made-up-status",
    ],
    [
      "whose metadata is at a file URL",
      without(401, { "www-authenticate": 'Bearer resource_metadata="file:///etc/passwd"' }),
      "resource",
      "metadata-url",
    ],
    [
      "whose metadata is a web page",
      at("/.well-known/oauth-protected-resource/mcp", (response) =>
        response.writeHead(200, { "content-type": "text/html" }).end("<html>"),
      ),
      "resource",
      "named-metadata",
    ],
    [
      "whose metadata is about another server",
      { resource: swap("resource", "https://other.example/mcp") },
      "resource",
      "resource-differs",
    ],
    [
      "whose metadata names the address inside its proxy",
      {
        resource: (document, { origin }) => ({
          ...document,
          resource: `${origin.replace("127.0.0.1", "localhost")}/mcp`,
        }),
      },
      "resource",
      "resource-differs",
    ],
    [
      "whose metadata differs by a slash",
      { resource: (document) => ({ ...document, resource: `${document["resource"]}/` }) },
      "resource",
      "resource-slash",
    ],
    [
      "whose metadata names no authorization server",
      { resource: drop("authorization_servers") },
      "resource",
      "no-authorization-server",
    ],
    [
      "whose authorization server is a script",
      { resource: swap("authorization_servers", ["javascript:alert(1)"]) },
      "resource",
      "issuer-url",
    ],
    [
      "that takes tokens in the query only",
      { resource: swap("bearer_methods_supported", ["query"]) },
      "resource",
      "no-header-method",
    ],
    [
      "whose authorization server has no metadata",
      at("/.well-known/oauth-authorization-server", (response) => response.writeHead(404).end()),
      "server",
      "no-server-metadata",
    ],
    ["whose issuer is another", { server: swap("issuer", "https://evil.example") }, "server", "issuer-differs"],
    [
      "whose issuer differs by a slash",
      { server: (document) => ({ ...document, issuer: `${document["issuer"]}/` }) },
      "server",
      "issuer-slash",
    ],
    ["without PKCE", { server: drop("code_challenge_methods_supported") }, "server", "no-s256"],
    ["with plain PKCE only", { server: swap("code_challenge_methods_supported", ["plain"]) }, "server", "no-s256"],
    ["without a token endpoint", { server: drop("token_endpoint") }, "server", "token-endpoint-url"],
    [
      "whose token endpoint is plain http",
      { server: swap("token_endpoint", "http://as.example/token") },
      "server",
      "token-endpoint-url",
    ],
    [
      "whose authorization endpoint would reach a shell",
      { server: swap("authorization_endpoint", "a:$(touch /tmp/owned)?response_type=code") },
      "server",
      "authorization-endpoint-url",
    ],
    [
      "that hides a command in an https address",
      { server: swap("authorization_endpoint", "https://as.example/`id`") },
      "server",
      "authorization-endpoint-url",
    ],
    ["without the code flow", { server: swap("response_types_supported", ["token"]) }, "server", "no-code"],
    [
      "that does not say who its answers are from",
      { server: drop("authorization_response_iss_parameter_supported") },
      "server",
      "no-iss",
    ],
    [
      "that web pages may not call",
      {
        answers: (request, response) => {
          if (request.method !== "OPTIONS") return false;
          response.writeHead(405).end();
          return true;
        },
      },
      "browser",
      "cors",
    ],
    [
      "that new clients cannot introduce themselves to",
      {
        server: (document) => ({
          ...document,
          registration_endpoint: undefined,
          client_id_metadata_document_supported: false,
        }),
      },
      "registration",
      "no-introduction",
    ],
    [
      "whose registration is closed",
      at("/register", (response) => json(response, 401, { error: "invalid_token" })),
      "registration",
      "registration-closed",
    ],
    [
      "whose registration refuses loopback",
      at("/register", (response) =>
        json(response, 400, { error: "invalid_redirect_uri", error_description: "no loopback" }),
      ),
      "registration",
      "registration-refused",
    ],
    [
      "that registers other redirects",
      { registered: swap("redirect_uris", ["https://evil.example/cb"]) },
      "registration",
      "redirects-changed",
    ],
    [
      "that gives a secret nobody asked for",
      {
        registered: (answer) => ({ ...answer, client_secret: "s3", token_endpoint_auth_method: "client_secret_basic" }),
      },
      "registration",
      "secret-given",
    ],
    [
      "that does not know its own client",
      at("/authorize", (response) =>
        response.writeHead(400, { "content-type": "text/html" }).end("<h1>Unknown client</h1>"),
      ),
      "authorize",
      "refused-at-once",
    ],
    ["that changes the state", { arrival: (params) => params.set("state", "other") }, "authorize", "state"],
    [
      "whose answer is from another issuer",
      { arrival: (params) => params.set("iss", "https://evil.example") },
      "authorize",
      "iss-differs",
    ],
    [
      "whose answer lacks the promised issuer",
      { arrival: (params) => params.delete("iss") },
      "authorize",
      "iss-missing",
    ],
    [
      "whose answer is an error",
      {
        arrival: (params) => {
          params.delete("code");
          params.set("error", "invalid_scope");
        },
      },
      "authorize",
      "answer-invalid_scope",
    ],
    ["that brings no code", { arrival: (params) => params.delete("code") }, "authorize", "no-code"],
    [
      "that refuses its own code",
      at("/token", (response) => json(response, 400, { error: "invalid_grant" })),
      "token",
      "invalid-grant",
    ],
    [
      "whose token endpoint is a web page",
      at("/token", (response) => response.writeHead(200, { "content-type": "text/html" }).end("<html>")),
      "token",
      "no-token",
    ],
    ["whose token is of another type", { tokens: swap("token_type", "mac") }, "token", "token-type"],
    [
      "whose token is for another server",
      { claims: swap("aud", "https://other.example/mcp") },
      "token",
      "wrong-audience",
    ],
    ["whose token is over", { claims: swap("exp", 1) }, "token", "expired"],
    ["whose token never ends", { claims: drop("exp") }, "token", "no-exp"],
    [
      "whose clock runs ahead",
      { claims: (claims) => ({ ...claims, iat: Number(claims["iat"]) + 600, exp: Number(claims["exp"]) + 600 }) },
      "token",
      "clock",
    ],
    ["without refresh tokens", { tokens: drop("refresh_token") }, "token", "no-refresh-token"],
    ["that gives less than was asked for", { tokens: swap("scope", "mcp:read") }, "token", "narrowed"],
    [
      "that does not rotate",
      { tokens: swap("refresh_token", "same"), renewed: swap("refresh_token", "same") },
      "refresh",
      "not-rotated",
    ],
    [
      "that refuses its own refresh token",
      { renewed: () => ({ error: "invalid_grant" }) },
      "refresh",
      "no-access-token",
    ],
    [
      "that refuses the token it gave",
      {
        mcp: (_message, response) => {
          response
            .writeHead(401, { "www-authenticate": 'Bearer error="invalid_token", error_description="audience"' })
            .end();
          return true;
        },
      },
      "call",
      "token-refused",
    ],
    [
      "that wants more than it asked for",
      {
        mcp: (_message, response) => {
          response.writeHead(403, { "www-authenticate": 'Bearer error="insufficient_scope", scope="mcp:admin"' }).end();
          return true;
        },
      },
      "call",
      "insufficient-scope",
    ],
    [
      "that speaks no MCP",
      {
        mcp: (_message, response) => {
          response.writeHead(200, { "content-type": "text/plain" }).end("hello");
          return true;
        },
      },
      "call",
      "not-2025-11-25",
    ],
    [
      "that knows one revision only",
      {
        mcp: (message, response) => {
          if (message["method"] !== "server/discover") return false;
          json(response, 200, { jsonrpc: "2.0", id: message["id"], error: { code: -32601, message: "no" } });
          return true;
        },
      },
      "call",
      "not-2026-07-28",
    ],
  ];

  test.each(rows)("%s is found", async (_title, illness, step, id) => {
    await using ill = await patient(illness);
    const verdict = await examined([ill.url, ...wholeWay]);
    expect(verdict.ill(step)).toContain(id);
    const check = verdict.check(id);
    expect(check?.advice).toMatch(/\S/);
    if (check?.outcome === "failed") expect(verdict).toMatchObject({ code: 1, ok: false });
    else expect(verdict.check(id)?.outcome).toBe("warning");
    // Nothing before it is blamed.
    const before = verdict.steps.slice(
      0,
      verdict.steps.findIndex((one) => one.step === step),
    );
    expect(before.filter(({ outcome }) => outcome === "failed")).toEqual([]);
  });

  test("that gives the token in an event stream is understood", async () => {
    await using sound = await patient({
      mcp(message, response) {
        if (message["id"] === undefined) return false;
        const result = { serverInfo: { name: "s", version: "1" }, protocolVersion: "2025-11-25", tools: [] };
        const data = JSON.stringify({ jsonrpc: "2.0", id: message["id"], result });
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.end(
          `: hi\r\n\r\ndata: {"jsonrpc":"2.0","method":"notifications/x"}\r\n\r\nid: 1\r\ndata: ${data}\r\n\r\n`,
        );
        return true;
      },
    });
    expect(await examined([sound.url, ...wholeWay])).toMatchObject({ code: 0, ok: true });
  });
});

describe("a server that cannot be reached", () => {
  test("because nothing listens is told apart from an unknown name and from plain http", async () => {
    const gone = await patient();
    await gone[Symbol.asyncDispose]();
    expect((await examined([gone.url])).ill("reach")).toEqual(["connection-refused"]);
    expect((await examined(["https://nowhere.invalid/mcp"])).ill("reach")).toEqual(["name-unknown"]);
    expect((await examined(["http://mcp.example/mcp"])).ill("reach")).toEqual(["url"]);
    expect((await examined(["file:///etc/passwd"])).ill("reach")).toEqual(["url"]);
  });

  test("because it does not speak TLS is told so", async () => {
    await using plain = await patient();
    const verdict = await examined([plain.url.replace("http:", "https:")]);
    expect(verdict.ill("reach")).toEqual(["tls-failed"]);
  });
});

describe("a hostile server", () => {
  test("writes nothing of its own into the terminal", async () => {
    await using hostile = await patient({
      resource: (document) => ({ ...document, resource: "https://x.example/\u001b]0;owned\u0007\u001b[2J\u202e" }),
    });
    const { stdout, stderr, code } = await run(["doctor", hostile.url]);
    expect(code).toBe(1);
    expect(`${stdout}${stderr}`).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202e]/);
    expect(stdout).toContain("It breaks at resource");
  });

  test("has no browser opened at an address that is none of the web", async () => {
    const opened: URL[] = [];
    for (const endpoint of ["javascript:alert(1)", "file:///bin/sh", "vscode://x/y", "https://as.example/$(id)"]) {
      await using hostile = await patient({ server: swap("authorization_endpoint", endpoint) });
      const argv = [hostile.url, ...wholeWay, "--open"];
      expect((await examined(argv, { openBrowser: (url) => opened.push(url) })).brokenAt).toBe("server");
    }
    expect(opened).toEqual([]);
  });

  test("on the internet cannot send the doctor to this machine", () => {
    expect(urlProblem("http://127.0.0.1:6379/", false)).toMatch(/your own computer/);
    expect(urlProblem("https://localhost/authorize", false)).toMatch(/your own computer/);
    expect(urlProblem("http://127.0.0.1:6379/", true)).toBeUndefined();
  });
});

describe("without a person", () => {
  test("it stops before the sign-in, registers nothing, and says how to go on", async () => {
    await using sound = await patient();
    const verdict = await examined([sound.url]);
    expect(verdict).toMatchObject({ code: 0, ok: true, sentence: expect.stringContaining("--sign-in") });
    expect(verdict.steps.filter(({ outcome }) => outcome === "skipped").map(({ step }) => step)).toEqual([
      "authorize",
      "token",
      "refresh",
      "call",
    ]);
    expect(sound.asked).not.toContain("POST /register");
  });

  test("--until ends the walk after that step", async () => {
    await using sound = await patient();
    const verdict = await examined([sound.url, "--until", "server"]);
    expect(verdict.steps.filter(({ outcome }) => outcome !== "skipped").map(({ step }) => step)).toEqual([
      "reach",
      "challenge",
      "resource",
      "server",
    ]);
  });

  test("a person who never comes ends the wait", async () => {
    await using sound = await patient(at("/authorize", (response) => response.writeHead(200).end("<h1>Sign in</h1>")));
    const verdict = await examined([sound.url, "--register", "--sign-in", "--timeout", "1"]);
    expect(verdict.ill("authorize")).toEqual(["nobody-came"]);
  });

  test("wrong usage ends with 2", async () => {
    for (const argv of [
      [],
      ["http://127.0.0.1:1/mcp", "--until", "lunch"],
      ["http://127.0.0.1:1/mcp", "--redirect", "https://x.example/cb"],
      ["http://127.0.0.1:1/mcp", "--client-secret-env", "NOT_SET"],
    ])
      expect((await run(["doctor", ...argv])).code).toBe(2);
  });
});

/** What a person does whose browser was opened. */
async function signIn({ browser }: World, url: URL): Promise<void> {
  const end = (await browser.go(url.href)) ?? (await browser.submit({ answer: "allow" }));
  await fetch(end ?? "");
}

test("a running gateway is walked from the URL through sign-in and consent to its tools", async () => {
  await using live = await world({
    servers: { echo: { command: [process.execPath, "test/fixtures/echo-stdio.ts"] } },
  });
  const { code, stdout, stderr } = await run(["doctor", live.url, "--register", "--sign-in", "--open"], {
    openBrowser: (url) => void signIn(live, url),
  });
  expect(stderr).toContain(`${live.origin}/oauth/authorize?`);
  expect(stdout).toMatch(/✓ call.*MCP 2025-11-25: .*MCP 2026-07-28: /s);
  expect(stdout).toContain("A client can connect, from the URL to the tools.");
  expect(code).toBe(0);
});

describe("the trail of a real client", () => {
  test("shows how far it came and the sentence that stopped it", async () => {
    await using here = await operated();
    const { live } = here;
    const { client } = await live.tokens();
    await live.post({ jsonrpc: "2.0", id: 1, method: "tools/list" }, {}, "");
    const wrong = new URLSearchParams({ grant_type: "authorization_code", code: "gone", client_id: client });
    wrong.set("redirect_uri", "http://127.0.0.1:1/cb");
    expect((await fetch(`${live.origin}/oauth/token`, { method: "POST", body: wrong })).status).toBe(400);
    const way = async () => (await here.cli(["doctor", "--trail", client])).stdout;
    await until(async () => (await way()).includes("It stopped at token: invalid_grant"));
    const shown = await way();
    for (const step of ["challenge", "registration", "authorize", "consent", "token"]) expect(shown).toContain(step);
    expect(shown).not.toContain("gone");
    const { stdout } = await here.cli(["doctor", "--trail"]);
    expect(stdout).toMatch(new RegExp(`✗ +token +Test client \\(${client}\\) +invalid_grant`));
    expect(await here.cli(["doctor", "--trail", "nobody"])).toMatchObject({ code: 1 });
    expect(await here.cli(["doctor"])).toMatchObject({ code: 2 });
  });
});

describe("as a client that exists", () => {
  const document = (change: Json): Illness => ({
    answers(request, response) {
      if (request.url !== "/client.json") return false;
      const id = `http://${request.headers.host}/client.json`;
      json(response, 200, { client_id: id, redirect_uris: ["http://127.0.0.1:1/callback"], ...change });
      return true;
    },
  });

  test.each([
    ["that is not its own", { client_id: "https://other.example/client.json" }, "document-client-id"],
    ["without this machine among its redirects", { redirect_uris: ["https://a.example/cb"] }, "document-redirect"],
  ])("a document %s is found before the sign-in", async (_title, change, id) => {
    await using sound = await patient(document(change));
    expect((await examined([sound.url, "--client-id", `${sound.origin}/client.json`])).ill("registration")).toEqual([
      id,
    ]);
  });

  test("a document on a server that takes none is told so", async () => {
    await using ill = await patient({ server: drop("client_id_metadata_document_supported") });
    const verdict = await examined([ill.url, "--client-id", `${ill.origin}/client.json`]);
    expect(verdict.ill("registration")).toEqual(["documents-not-taken"]);
  });

  test("a secret is read from the environment, sent as the server wants it, and never printed", async () => {
    const sent: (string | undefined)[] = [];
    await using sound = await patient({
      answers(request) {
        if (request.method === "POST" && request.url === "/token") sent.push(request.headers.authorization);
        return false;
      },
    });
    const argv = ["doctor", sound.url, "--sign-in", "--client-id", "desk", "--client-secret-env", "DESK_SECRET"];
    const { code, stdout, stderr } = await run(argv, { env: { DESK_SECRET: "very-secret" } });
    expect(code).toBe(0);
    expect(sent[0]).toBe(`Basic ${Buffer.from("desk:very-secret").toString("base64")}`);
    expect(`${stdout}${stderr}`).not.toContain("very-secret");
  });

  test("a gateway of ours is walked with a metadata document over https", async () => {
    await using host = await documentHost();
    await using live = await world({
      servers: { echo: { command: [process.execPath, "test/fixtures/echo-stdio.ts"] } },
      clients: { metadataDocuments: host.settings },
    });
    const client = host.publish("/doctor.json");
    const certificate = String(host.settings["trustedCertificates"]);
    const { code, stdout } = await run(
      ["doctor", live.url, "--client-id", client, "--ca", certificate, "--sign-in", "--open"],
      { openBrowser: (url) => void signIn(live, url) },
    );
    expect(stdout).toContain("The client's document is there and its own");
    expect(stdout).toContain("A client can connect, from the URL to the tools.");
    expect(code).toBe(0);
    const untrusted = await run(["doctor", live.url, "--client-id", client]);
    expect(untrusted.stdout).toContain("self-signed certificate");
  });
});
