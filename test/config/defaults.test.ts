/** Settings without a file. */
import { join } from "node:path";
import { expect, test } from "vitest";
import { nameOfCommand, nameOfUrl, settingsForCommand, settingsForUrl, simpleName } from "../../src/config/defaults.ts";
import { serverName } from "../../src/upstream/settings.ts";

test.each([
  [["npx", "-y", "@modelcontextprotocol/server-filesystem", "./docs"], "filesystem"],
  [["npx", "-y", "@acme/orders-mcp@1.4.2"], "orders"],
  [["npx", "--package", "@acme/suite", "orders-server"], "orders"],
  [["uvx", "mcp-server-git", "--repository", "."], "git"],
  [["uvx", "--from", "git+https://x.example/y", "time-mcp==2.0"], "time"],
  [["docker", "run", "-i", "--rm", "-e", "TOKEN", "ghcr.io/github/github-mcp-server:v1.2"], "github"],
  [["node", "/srv/weather/dist/index.js"], "weather"],
  [["node", "--import", "tsx", "servers/big_orders.ts"], "big-orders"],
  [["python3", "-m", "mailServer"], "mail"],
  [["./42-things"], "things"],
  [["node"], "node"],
  [["node", "index.js"], "server"],
  [["C:\\tools\\Desk.exe"], "desk"],
])("the server of %j is called %s", (argv, name) => {
  expect(nameOfCommand(argv)).toBe(name);
  expect(serverName.safeParse(name).success).toBe(true);
});

test.each([
  ["https://api.githubcopilot.com/mcp/", "githubcopilot"],
  ["https://mcp.linear.app/sse", "linear"],
  ["http://127.0.0.1:9000/mcp", "local-9000"],
  ["http://localhost/mcp", "local"],
  ["https://mcp.example.co.uk/", "example"],
])("the server at %s is called %s", (url, name) => {
  expect(nameOfUrl(url)).toBe(name);
});

test("whatever a command is called, its name is one that settings accept", () => {
  for (const word of [
    "---",
    "…",
    "@/",
    "9".repeat(80),
    "a".repeat(80),
    "Ümläut",
    "mcp",
    "server",
    "x--y",
    "-mcp-server-",
  ]) {
    expect(serverName.safeParse(nameOfCommand([word])).success, word).toBe(true);
    expect(simpleName(word).length).toBeLessThanOrEqual(40);
  }
});

test("a command gets safe defaults: loopback, local users, a store in the current folder", async () => {
  const overrides = { "--port": { path: ["listen", "port"], value: 0 } };
  const { settings, file, warnings } = await settingsForCommand(
    ["npx", "-y", "some-mcp", "${kept}"],
    import.meta.dirname,
    { env: {}, overrides },
  );
  expect(file).toBeUndefined();
  expect(warnings).toEqual([]);
  expect(settings).toMatchObject({
    listen: { host: "127.0.0.1", port: 0 },
    signIn: { local: true },
    clients: { metadataDocuments: { others: "ask" } },
    store: `sqlite:${join(import.meta.dirname, ".drawbridge/drawbridge.db")}`,
    servers: { some: { command: ["npx", "-y", "some-mcp", "${kept}"], cwd: import.meta.dirname } },
  });
});

test("a URL that is none is refused with a sentence", async () => {
  await expect(settingsForUrl("nonsense", process.cwd(), { env: {} })).rejects.toThrow(
    "servers.server.url: expected a URL that starts with http:// or https://",
  );
});
