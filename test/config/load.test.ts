/** The settings file: every problem at once, each in its place, and no secret in any message. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterAll, describe, expect, test } from "vitest";
import { type LoadedSettings, type LoadOptions, loadSettings } from "../../src/config/load.ts";
import { problemText, type SettingsProblem, SettingsProblems } from "../../src/config/problems.ts";
import { Secret } from "../../src/core/secret.ts";

const folder = mkdtempSync(join(tmpdir(), "drawbridge-config-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let count = 0;
function write(text: string | Uint8Array): string {
  const file = join(folder, `settings-${count++}.yaml`);
  writeFileSync(file, text);
  return file;
}

const load = (text: string, options: Partial<LoadOptions> = {}): Promise<LoadedSettings> =>
  loadSettings(write(text), { env: {}, ...options });

async function problemsOf(
  text: string | Uint8Array,
  options: Partial<LoadOptions> = {},
): Promise<readonly SettingsProblem[]> {
  const thrown: unknown = await loadSettings(write(text), { env: {}, ...options }).then(
    () => new Error("the settings were accepted"),
    (error: unknown) => error,
  );
  if (!(thrown instanceof SettingsProblems)) throw thrown;
  return thrown.problems;
}

/** `line:column path: message` of each problem. */
async function report(text: string | Uint8Array, options: Partial<LoadOptions> = {}): Promise<string[]> {
  return (await problemsOf(text, options)).map((problem) => problemText({ ...problem, file: "f" }).replace(/^f:/, ""));
}

const SERVER = "servers: { a: { command: [node] } }\n";

describe("problems", () => {
  const table: readonly [title: string, text: string, expected: readonly (string | RegExp)[]][] = [
    [
      "an unknown key is at the key and names the nearest",
      `${SERVER}lisen: {}\n`,
      ['2:1 lisen: unknown key; did you mean "listen"?'],
    ],
    [
      "an unknown key far from every other lists what is known",
      `${SERVER}tls: { certificate: x, key: y, zzzzzzzz: 1 }\n`,
      [
        /^2:21 tls\.certificate: there is no file/,
        /^2:29 tls\.key: there is no file/,
        "2:32 tls.zzzzzzzz: unknown key; known keys: certificate, key",
      ],
    ],
    [
      "a value outside a list names the nearest",
      `${SERVER}log:\n  level: inf\n`,
      ['3:10 log.level: "inf" is not one of trace, debug, info, warn, error, silent; did you mean "info"?'],
    ],
    [
      "a wrong type is at the value",
      `${SERVER}listen:\n  port: "high"\n`,
      ["3:9 listen.port: expected a number, found a text"],
    ],
    ["a number out of range", `${SERVER}listen: { port: 70000 }\n`, ["2:17 listen.port: must be at most 65535"]],
    [
      "a missing key is at the mapping that lacks it",
      `${SERVER}tls:\n  certificate: x\n`,
      ["2:1 tls.key: is missing; expected a text"],
    ],
    ["an empty file lacks servers", "", ["1:1 servers: is missing; expected a mapping"]],
    [
      "a server without command and url",
      "servers:\n  a: {}\n",
      ["2:3 servers.a: needs one of the keys command, url, module"],
    ],
    [
      "a key of the other kind of server",
      "servers:\n  a: { url: 'https://a.example/mcp', processes: {} }\n",
      [/^2:38 servers\.a\.processes: unknown key; known keys: url, /],
    ],
    [
      "a misspelt key of a stdio server",
      "servers:\n  a:\n    command: [node]\n    timeoutSecond: 3\n",
      ['4:5 servers.a.timeoutSecond: unknown key; did you mean "timeoutSeconds"?'],
    ],
    [
      "a server name that is not allowed",
      "servers:\n  Big_One: { command: [node] }\n",
      [/^2:3 servers\.Big_One: the name is not allowed: expected lower-case letters/],
    ],
    [
      "a role that is not there",
      `${SERVER}roles: { support: { may: ['*'] } }\nassign:\n  - { role: suport, group: x }\n`,
      ['4:13 assign.0.role: there is no role "suport"; did you mean "support"?'],
    ],
    ["an assignment to nobody", `${SERVER}assign:\n  - role: owner\n`, [/^3:5 assign\.0: names nobody/]],
    [
      "a condition that does not parse",
      `${SERVER}roles: { r: { may: ['*'], when: 'args.x +' } }\n`,
      [/^2:33 roles\.r\.when: /],
    ],
    ["a public URL over plain http", `${SERVER}publicUrl: http://mcp.example\n`, [/^2:12 publicUrl: must be https/]],
    [
      "an address that is not loopback without TLS",
      `${SERVER}publicUrl: https://mcp.example\nlisten: { host: 0.0.0.0 }\n`,
      [/^3:17 listen\.host: is not a loopback address: add tls/],
    ],
    [
      "an address that is not loopback without a public URL",
      `${SERVER}listen: { host: 0.0.0.0, behindTlsProxy: true }\n`,
      [/^2:17 listen\.host: is not a loopback address: set publicUrl/],
    ],
    [
      "an identity provider over plain http",
      `${SERVER}signIn: { providers: { idp: { issuer: "http://idp.example", clientId: x } } }\n`,
      [/^2:\d+ signIn\.providers\.idp\.issuer: must be https/],
    ],
    [
      "an issuer with a query",
      `${SERVER}signIn: { providers: { idp: { issuer: "https://idp.example/?a=1", clientId: x } } }\n`,
      [/^2:\d+ signIn\.providers\.idp\.issuer: must have no user, query or fragment/],
    ],
    [
      "an upstream over plain http",
      "servers: { a: { url: 'http://b.example/mcp' } }\n",
      [/^1:22 servers\.a\.url: is plain http to a host that is not loopback/],
    ],
    ["a key that is there twice", `${SERVER}log: {}\nlog: {}\n`, ["3:1: not valid YAML: this key is there twice"]],
    ["broken YAML is one problem", "servers: [1\nlog: 2\nx: 3\n", [/^2:1: not valid YAML: /]],
    ["two documents", `${SERVER}---\n{}\n`, [/^2:1: not valid YAML: one document only/]],
    ["a list instead of settings", "- a\n", [/^1:1: expected a mapping of settings/, /servers: is missing/]],
    [
      "a folder that is not there",
      "servers: { a: { command: [node], cwd: ./nowhere } }\n",
      [/^1:39 servers\.a\.cwd: there is no folder /],
    ],
    [
      "settings of the embedded authorization server beside another one",
      `${SERVER}authorization: { issuer: "https://login.example" }\nsignIn: { local: false }\ntokens: { dpop: off }\n`,
      [
        /signIn: is not used beside authorization, where https:\/\/login\.example signs people in/,
        /tokens: is not used beside authorization/,
      ],
    ],
    [
      "another authorization server over plain http",
      `${SERVER}authorization: { issuer: "http://login.example" }\n`,
      [/authorization\.issuer: must be https/],
    ],
    [
      "an alias of nothing",
      "servers: *a\n",
      [/^1:10 servers: this alias refers to nothing/, /^1:10 servers: expected a mapping, found nothing/],
    ],
    [
      "__proto__ as a key",
      "servers: { a: { command: [node], environment: { __proto__: x } } }\n",
      [/^1:49 servers\.a\.environment: a key must be a plain word/],
    ],
  ];
  test.each(table)("%s", async (_, text, expected) => {
    const found = await report(text);
    expect(found).toHaveLength(expected.length);
    for (const [index, one] of expected.entries()) {
      if (typeof one === "string") expect(found[index]).toBe(one);
      else expect(found[index]).toMatch(one);
    }
  });

  test("all are reported at once, in the order of the file, those between settings too", async () => {
    const found = await report(`publicUrl: http://mcp.example
listen: { host: 0.0.0.0, prt: 1 }
servers:
  a: { command: npx }
  b: { url: 'http://b.example/mcp' }
  c: { command: [node], environment: { X: '\${env:NOT_SET}' }, cwd: ./nowhere }
assign: [ { role: nobody, when: 'true' } ]
log: { level: loud }
`);
    expect(found.map((line) => line.split(":").slice(0, 3).join(":"))).toEqual([
      "1:12 publicUrl: must be https, because tokens travel over it; plain http is for loopback",
      "2:17 listen.host: is not a loopback address",
      '2:26 listen.prt: unknown key; did you mean "port"?',
      "4:17 servers.a.command: expected a list, found a text",
      expect.stringMatching(/^5:13 servers\.b\.url/),
      expect.stringMatching(/^6:43 servers\.c\.environment\.X/),
      expect.stringMatching(/^6:68 servers\.c\.cwd/),
      expect.stringMatching(/^7:19 assign\.0\.role/),
      expect.stringMatching(/^8:15 log\.level/),
    ]);
  });

  test("the file is named as the user named it", async () => {
    const file = write("x: 1\n");
    await expect(loadSettings(file, { env: {} })).rejects.toThrow(`${file}:1:1 x: unknown key`);
  });

  test("a file that is missing, too large or not text is one clear problem", async () => {
    await expect(loadSettings(join(folder, "absent.yaml"), { env: {} })).rejects.toThrow(
      /absent\.yaml: there is no such file/,
    );
    expect(await report("#".repeat((1 << 20) + 1))).toEqual([expect.stringMatching(/is larger than 1048576 bytes$/)]);
    expect(await report(new Uint8Array([0x61, 0xff]))).toEqual([expect.stringMatching(/is not UTF-8 text$/)]);
  });

  test("a file that grows when its aliases are followed is refused at once", async () => {
    const levels = Array.from(
      { length: 20 },
      (_, index) => `a${index + 1}: &a${index + 1} [${Array.from({ length: 10 }, () => `*a${index}`).join(", ")}]`,
    );
    const started = performance.now();
    expect(
      (await report(`a0: &a0 [x]\n${levels.join("\n")}\n`)).some((line) => line.includes("more than 100 aliases")),
    ).toBe(true);
    expect(performance.now() - started).toBeLessThan(10_000);
  });

  test("a file nested thousands of levels deep is refused at once", async () => {
    expect((await report(`servers: ${"[".repeat(3000)}${"]".repeat(3000)}\n`)).length).toBeGreaterThan(0);
  });

  test("a problem of an option names the option", async () => {
    const overrides = {
      "--host": { path: ["listen", "host"], value: "0.0.0.0" },
      "--log-level": { path: ["log", "level"], value: undefined },
    };
    const found = await problemsOf(SERVER, { overrides });
    expect(problemText(found[0] as SettingsProblem)).toMatch(/^option --host listen\.host: is not a loopback address/);
  });
});

describe("references", () => {
  test("environment variables are put in, with their defaults, as what their place expects", async () => {
    const { settings } = await load(
      "listen: { port: ${env:PORT}, behindTlsProxy: ${env:PROXY:-false} }\nservers: { a: { command: [node, 'x-${env:NAME}-${env:OTHER:-y z}', '$${env:NAME}'] } }\n",
      { env: { PORT: "8080", NAME: "n" } },
    );
    expect(settings.listen).toMatchObject({ port: 8080, behindTlsProxy: false });
    expect(settings.servers["a"]).toMatchObject({ command: ["node", "x-n-y z", "${env:NAME}"] });
  });

  test("secrets stand in braces without quotes, and in a longer text", async () => {
    const { settings } = await load(
      "servers: { a: { url: 'https://a.example/mcp', headers: { X: ${secret:one}, Authorization: 'Bearer ${secret:two}' } } }\n",
      {
        readSecret: async (name) => `value-of-${name}`,
      },
    );
    const server = settings.servers["a"];
    if (server === undefined || !("url" in server)) throw new Error("not an HTTP server");
    const revealed = Object.values(server.headers).map((value) =>
      value instanceof Secret ? value.reveal() : "not a secret",
    );
    expect(revealed).toEqual(["value-of-one", "Bearer value-of-two"]);
    expect(inspect(settings, { depth: 9 }) + JSON.stringify(settings)).not.toContain("value-of");
  });

  test("a variable from the environment is a secret wherever one can stand", async () => {
    const { settings } = await load(
      "servers: { a: { command: [node], environment: { TOKEN: '${env:TOKEN}', MODE: fast } } }\n",
      { env: { TOKEN: "t0k3n-value" } },
    );
    expect(settings.servers["a"]).toMatchObject({ environment: { TOKEN: expect.any(Secret), MODE: "fast" } });
  });

  test("a secret comes from the credentials directory, then from secrets/, then from the environment", async () => {
    const credentials = join(folder, "credentials");
    const beside = join(folder, "secrets");
    mkdirSync(credentials);
    mkdirSync(beside);
    for (const [file, text] of [
      [join(credentials, "one"), "first\n"],
      [join(beside, "one"), "second"],
      [join(beside, "two"), "third\n\n"],
    ] as const) {
      writeFileSync(file, text, { mode: 0o600 });
    }
    const { settings, warnings } = await load(
      "servers: { a: { command: [node], environment: { A: '${secret:one}', B: '${secret:two}', C: '${secret:the-third}' } } }\n",
      {
        env: { CREDENTIALS_DIRECTORY: credentials, DRAWBRIDGE_SECRET_ONE: "no", DRAWBRIDGE_SECRET_THE_THIRD: "fourth" },
      },
    );
    const server = settings.servers["a"];
    if (server === undefined || !("environment" in server)) throw new Error("not a stdio server");
    expect(
      Object.values(server.environment).map((value) => (value instanceof Secret ? value.reveal() : value)),
    ).toEqual(["first", "third\n", "fourth"]);
    expect(warnings).toEqual([]);
    chmodSync(join(beside, "two"), 0o644);
    expect((await load("servers: { a: { command: [node], environment: { B: '${secret:two}' } } }\n")).warnings).toEqual(
      [expect.stringMatching(/secret two: .*chmod 600/)],
    );
  });

  test.each([
    ["an unset variable", "${env:GONE}", "environment variable GONE is not set; set it or write ${env:GONE:-default}"],
    [
      "a secret that nobody provides",
      "${secret:gone-1}",
      /secret gone-1 is not provided; put it in the file secrets\/gone-1 .* DRAWBRIDGE_SECRET_GONE_1$/,
    ],
    ["a secret whose name is a path", "${secret:../../etc/passwd}", /not a reference this file can have/],
    ["a reference of another program", "${HOME}", /not a reference this file can have; write \$\{env:NAME\}/],
  ])("%s is a problem in its place", async (_, reference, expected) => {
    const [first = "", ...more] = await report(`servers:\n  a:\n    command: [node, "${reference}"]\n`);
    expect(more).toEqual([]);
    expect(first.slice(0, "3:21 servers.a.command.1: ".length)).toBe("3:21 servers.a.command.1: ");
    const message = first.slice("3:21 servers.a.command.1: ".length);
    if (typeof expected === "string") expect(message).toBe(expected);
    else expect(message).toMatch(expected);
  });

  test("a secret cannot stand where others could read it", async () => {
    expect(
      await report("servers: { a: { command: [node], cwd: './${secret:x}' } }\n", {
        readSecret: async () => "s3cr3t",
      }),
    ).toEqual(["1:39 servers.a.cwd: expected a text, found a secret, which is not allowed here"]);
  });

  test("a secret may stand in an argument, with a warning, because other programs can see it there", async () => {
    const { settings, warnings } = await load("servers: { a: { command: [node, '--token=${secret:x}'] } }\n", {
      readSecret: async () => "s3cr3t",
    });
    expect(settings.servers["a"]).toMatchObject({ command: ["node", expect.any(Secret)] });
    expect(warnings.join("\n")).toMatch(/servers\.a\.command has a secret in an argument, which every program/);
    expect(warnings.join("\n")).not.toContain("s3cr3t");
  });
});

describe("secrets are never printed", () => {
  const literal = "hunter2-hunter2-hunter2";
  test.each([
    [
      "where a reference is required",
      `${SERVER}clients: { preregistered: [{ id: a, name: b, redirectUris: [x], secret: ${literal} }] }\n`,
      /expected a reference such as \$\{secret:name\}/,
    ],
    [
      "in an authorization header",
      `servers: { a: { url: 'https://a.example/mcp', headers: { Authorization: 'Bearer ${literal}' } } }\n`,
      /looks like a secret written into the file/,
    ],
    [
      "in an environment variable of a telling name",
      `servers: { a: { command: [node], environment: { GITHUB_TOKEN: ${literal} } } }\n`,
      /write a reference such as \$\{secret:github-token\} or \$\{env:GITHUB_TOKEN\}/,
    ],
    [
      "in an environment variable of any name",
      "servers: { a: { command: [node], environment: { X: ghp_hunter2hunter2hunter2 } } }\n",
      /looks like a secret/,
    ],
    ["in a URL", `servers: { a: { url: 'https://me:${literal}@a.example/mcp' } }\n`, /must have no user or password/],
    ["in broken YAML", `secret: "a" ${literal}\n`, /not valid YAML/],
    ["as a wrong type", `servers: ${literal}\n`, /expected a mapping, found a text/],
  ])("%s", async (_, text, expected) => {
    const lines = (await report(text)).join("\n");
    expect(lines).toMatch(expected);
    expect(lines).not.toContain("hunter2");
  });

  test("a value from the environment is not quoted when it does not fit", async () => {
    const found = await report(`${SERVER}log: { level: "\${env:LEVEL}" }\n`, { env: { LEVEL: literal } });
    expect(found).toEqual([expect.stringContaining('"${env:LEVEL}" is not one of')]);
    expect(found.join()).not.toContain("hunter2");
  });

  test("values that only look like secrets by name are left alone", async () => {
    await expect(
      load(
        "servers: { a: { command: [node], environment: { USE_TOKEN: 'true', MAX_TOKEN: '4096', TOKENIZERS_PARALLELISM: 'false' } } }\n",
      ),
    ).resolves.toBeDefined();
  });
});

describe("what is loaded", () => {
  test("relative paths count from the folder of the file, and stdio servers run there", async () => {
    const { settings, folder: from } = await load(
      "servers: { a: { command: [node] }, b: { command: [node], cwd: .. } }\n",
    );
    expect(from).toBe(folder);
    expect(settings.store).toBe(`sqlite:${join(folder, ".drawbridge/drawbridge.db")}`);
    expect(settings.servers["a"]).toMatchObject({ cwd: folder });
    expect(settings.servers["b"]).toMatchObject({ cwd: join(folder, "..") });
  });

  test("insecure options warn, each by its name", async () => {
    const { warnings } = await load(
      "publicUrl: http://127.0.0.1:1\nstore: memory\nlisten: { host: 0.0.0.0, allowInsecureHttp: true }\nservers: { a: { url: 'http://b.example/mcp', allowInsecureHttp: true } }\nclients: { registration: open, metadataDocuments: { allowPrivateAddresses: true } }\n",
    );
    expect(warnings.map((warning) => warning.split(" ")[0])).toEqual([
      "listen.allowInsecureHttp",
      "clients.metadataDocuments.allowPrivateAddresses",
      "servers.a.allowInsecureHttp",
      "clients.registration",
      "store",
    ]);
  });

  test("defaults have nothing to warn about", async () => {
    expect((await load(SERVER)).warnings).toEqual([]);
  });

  test("options of the command line win over the file", async () => {
    const overrides = {
      "--port": { path: ["listen", "port"], value: 9 },
      "--public-url": { path: ["publicUrl"], value: "https://x.example" },
    };
    const { settings } = await load(`${SERVER}listen: { port: 1, maxDepth: 9 }\n`, { overrides });
    expect(settings).toMatchObject({ publicUrl: "https://x.example", listen: { port: 9, maxDepth: 9 } });
  });
});
