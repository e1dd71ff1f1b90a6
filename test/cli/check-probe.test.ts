/** `drawbridge check` of a URL: a careful server has nothing to fear, and each fault of a careless one is found. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createPlain } from "node:http";
import { createServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, expect, test } from "vitest";
import { openAsking } from "../../src/cli/check-probe/asking.ts";
import { world } from "../e2e/world.ts";
import { FAULTS, type Fault, type Faulty, faultyAuthorization, KNOWN } from "../fixtures/faulty-authorization.ts";
import { selfSigned } from "../oauth/certificate.ts";
import { listen, stop } from "../oauth/support.ts";
import { run } from "./terminal.ts";

interface Checked {
  readonly code: number;
  /** Rules about the server that found something. */
  readonly rules: readonly string[];
  readonly overall: string;
  readonly fifth: string;
  readonly untested: readonly string[];
  readonly tools: readonly { readonly name: string }[];
  readonly text: string;
}

async function checked(url: string, token?: string, ...more: string[]): Promise<Checked> {
  const argv = ["check", url, "--format", "json", ...(token === undefined ? [] : ["--token-env", "TOKEN"]), ...more];
  const { code, stdout, stderr } = await run(argv, { env: { TOKEN: token ?? "" } });
  if (!stdout.startsWith("{")) throw new Error(stderr);
  const report = JSON.parse(stdout);
  return {
    code,
    rules: report.servers.flatMap(({ findings }: { findings: { rule: string }[] }) => findings.map(({ rule }) => rule)),
    overall: report.grades.overall,
    fifth: report.grades.principles[4].grade,
    untested: report.untested,
    tools: report.tools,
    text: stdout + stderr,
  };
}
const judged = (server: Faulty, ...more: string[]) => checked(server.url, server.token, ...more);

describe("a server that does everything right", () => {
  test("has an A and no finding, and is left as it was", async () => {
    await using server = await faultyAuthorization();
    const { code, rules, overall, tools, text } = await judged(server);
    expect(rules).toEqual([]);
    expect({ code, overall }).toEqual({ code: 0, overall: "A" });
    expect(tools.map(({ name }) => name)).toEqual(["order_status"]);
    expect([...server.clients.keys(), ...server.sessions]).toEqual([]);
    expect(server.asked.length).toBeLessThan(100);
    expect(text).not.toContain(server.token);
  });

  test("is judged without a token, too, and what was not seen is said", async () => {
    await using server = await faultyAuthorization();
    const { rules, untested, tools } = await checked(server.url);
    expect({ rules, tools }).toEqual({ rules: [], tools: [] });
    expect(untested.join("\n")).toMatch(/Its tools and its sessions: .*--token-env/);
    expect(untested.join("\n")).toMatch(/takes a person's sign-in/);
    expect(untested.join("\n")).toMatch(/that would be load/);
  });

  test("registers no client when it shall not", async () => {
    await using server = await faultyAuthorization();
    const { untested } = await judged(server, "--no-register");
    expect(server.asked).not.toContain("POST /register");
    expect(untested.join("\n")).toMatch(/--register makes one/);
  });
});

/** Faults that only show when a code is given at once. */
const WITH_CODES: readonly Fault[] = ["wrong iss", "any verifier", "codes twice"];
/** A fault that takes the way to everything that comes after it. */
const BLINDING: readonly Fault[] = ["no resource metadata", "no server metadata"];

describe("a careless server", () => {
  test.each(Object.entries(FAULTS) as [Fault, string][])(
    "with the fault “%s” is found by %s, and by nothing else",
    async (fault, rule) => {
      const needed: readonly Fault[] = WITH_CODES.includes(fault) ? ["codes without sign-in"] : [];
      await using server = await faultyAuthorization(fault, ...needed);
      const { rules, fifth } = await judged(server, "--fail-on", "never");
      const along = needed.map((one) => FAULTS[one]);
      expect(new Set(rules)).toEqual(new Set([rule, ...along]));
      if (!BLINDING.includes(fault)) expect([...server.clients.keys(), ...server.sessions]).toEqual([]);
      expect(fifth).toMatch(/^[A-F]$/);
    },
  );

  test("with ten faults at once has every one of them named, an F, and exit code 1", async () => {
    const ten: readonly Fault[] = [
      "issuer of another",
      "PKCE by plain",
      "PKCE may be left out",
      "iss is not promised",
      "implicit grant",
      "any redirect",
      "any audience",
      "registers scripts",
      "sign-in in a frame",
      "tokens for strangers",
    ];
    await using server = await faultyAuthorization(...ten);
    const { code, rules, overall } = await checked(server.url);
    for (const fault of ten) expect(rules, fault).toContain(FAULTS[fault]);
    expect({ code, overall }).toEqual({ code: 1, overall: "F" });
  });
});

test("a client that is known already is used in place of a registered one", async () => {
  await using server = await faultyAuthorization("PKCE may be left out", "any redirect");
  const argv = ["--no-register", "--client-id", KNOWN.id, "--redirect", KNOWN.redirect, "--fail-on", "never"];
  const { rules } = await judged(server, ...argv);
  expect(new Set(rules)).toEqual(new Set(["pkce-not-required", "redirect-unchecked"]));
  expect(server.asked).not.toContain("POST /register");
});

describe("servers as they are", () => {
  test("our own gateway has an A: alone, and with the tools of a contract", async () => {
    await using live = await world({
      servers: { echo: { command: [process.execPath, join(import.meta.dirname, "../fixtures/echo-stdio.ts")] } },
      tools: {
        sum: {
          from: "echo/sum",
          title: "Sum",
          description: "Adds two whole numbers of at most a thousand. Use it instead of adding in your head.",
          input: {
            a: { type: "integer", minimum: 0, maximum: 1000, description: "The first number." },
            b: { type: "integer", minimum: 0, maximum: 1000, description: "The second number." },
          },
          output: ["sum"],
          access: "read",
        },
      },
    });
    const alone = await checked(live.url);
    expect({ ...alone, text: "", untested: [] }).toMatchObject({ code: 0, rules: [], overall: "A" });
    const { access_token: token } = await live.tokens();
    const inside = await checked(live.url, token);
    expect(inside.tools.map(({ name }) => name)).toEqual(["sum"]);
    expect({ ...inside, text: "", untested: [] }).toMatchObject({ code: 0, rules: [], overall: "A" });
  }, 60_000);

  test("a server without authentication has an F", async () => {
    const child = spawn(process.execPath, [join(import.meta.dirname, "../fixtures/echo-http.ts")], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    try {
      const [line] = (await once(createInterface(child.stdout), "line")) as [string];
      const { code, rules, overall, tools } = await checked(`http://127.0.0.1:${line.replace(/\D/g, "")}/mcp`);
      expect({ code, overall }).toEqual({ code: 1, overall: "F" });
      for (const rule of ["no-authentication", "origin-unchecked", "host-unchecked"]) expect(rules).toContain(rule);
      expect(tools.length).toBeGreaterThan(5);
    } finally {
      child.kill();
      await once(child, "exit");
    }
  }, 60_000);

  test.each([
    ["nobody listens at", "http://127.0.0.1:9/mcp", /could not be reached/],
    ["is plain http elsewhere", "http://mcp.example.com/mcp", /plain http/],
    ["holds a password", "https://user:pass@mcp.example.com/mcp", /user name/],
  ])("an address that %s is not asked, and has an F", async (_, url, why) => {
    const { code, overall, text } = await checked(url);
    expect({ code, overall }).toEqual({ code: 1, overall: "F" });
    expect(text).toMatch(why);
    expect(text).not.toContain("user:pass");
  });

  test("over https the certificate is looked at: one that nobody knows is why nothing else is seen, one that ends soon is found", async () => {
    const { certificate, key } = await selfSigned();
    const folder = mkdtempSync(join(tmpdir(), "check-probe-"));
    const http = createServer({ cert: certificate, key }, (request, response) => {
      const foreign = request.headers.origin !== undefined || !request.headers.host?.startsWith("localhost:");
      response.writeHead(foreign ? 403 : 401).end();
    });
    try {
      const url = `https://localhost:${await listen(http)}/mcp`;
      const unknown = await checked(url);
      expect({ code: unknown.code, overall: unknown.overall, rules: unknown.rules }).toEqual({
        code: 1,
        overall: "F",
        rules: ["certificate-trouble"],
      });
      writeFileSync(join(folder, "ca.pem"), certificate);
      const known = await checked(url, undefined, "--ca", join(folder, "ca.pem"), "--fail-on", "never");
      expect(known.code).toBe(0);
      expect([...known.rules].sort()).toEqual([
        "certificate-trouble",
        "no-challenge",
        "no-hsts",
        "no-resource-metadata",
      ]);
      expect(known.text).toMatch(/it ends in 0 days/);
    } finally {
      await stop(http);
      rmSync(folder, { recursive: true });
    }
  });

  test("an address without an MCP server has an F, and no praise", async () => {
    const http = createPlain((_, response) =>
      response.writeHead(200, { "content-type": "text/html" }).end("<h1>Welcome</h1>"),
    );
    try {
      const { code, overall, text } = await checked(`http://127.0.0.1:${await listen(http)}/mcp`);
      expect({ code, overall }).toEqual({ code: 1, overall: "F" });
      expect(text).toContain("There is no MCP server at this address");
    } finally {
      await stop(http);
    }
  });

  test("a server that puts questions off is not taken for one that refuses or lets in", async () => {
    let count = 0;
    const http = createPlain((_, response) => response.writeHead(++count > 3 ? 429 : 401).end());
    try {
      const { rules, untested } = await checked(`http://127.0.0.1:${await listen(http)}/mcp`);
      for (const rule of ["origin-unchecked", "token-unverified", "redirect-unchecked"])
        expect(rules).not.toContain(rule);
      expect(untested.join("\n")).toMatch(/put off \(429\)/);
    } finally {
      await stop(http);
    }
  });

  test("questions have a bound in number and in time, and what is taken back has not", async () => {
    const asked: string[] = [];
    const http = createPlain((request, response) => {
      asked.push(String(request.method));
      if (request.method !== "POST") response.writeHead(204).end();
    });
    const url = new URL(`http://127.0.0.1:${await listen(http)}/mcp`);
    const few = await openAsking(url, undefined, { requests: 2, ms: 60_000 });
    const brief = await openAsking(url, undefined, { requests: 10, ms: 50 });
    try {
      for (let at = 0; at < 5; at++) await few.ask(url);
      expect(few.left.count).toBe(3);
      expect(asked).toEqual(["GET", "GET"]);
      // The answer to this one never comes.
      expect(await brief.ask(url, { method: "POST" })).toBeUndefined();
      expect(await brief.ask(url)).toBeUndefined();
      await brief.end(url, { method: "DELETE" });
      expect(asked).toEqual(["GET", "GET", "POST", "DELETE"]);
    } finally {
      await few.close();
      await brief.close();
      await stop(http);
    }
  });

  test("a token that is not there is wrong usage", async () => {
    const { code, stderr } = await run(["check", "http://127.0.0.1:9/mcp", "--token-env", "ABSENT"]);
    expect(code).toBe(2);
    expect(stderr).toContain("ABSENT");
  });

  test("a token that the server refuses makes an F, and is not taken for a server without tools", async () => {
    await using server = await faultyAuthorization();
    const { code, overall, text } = await checked(server.url, "of-somebody-else");
    expect({ code, overall }).toEqual({ code: 1, overall: "F" });
    expect(text).toMatch(/answers 401/);
  });
});
