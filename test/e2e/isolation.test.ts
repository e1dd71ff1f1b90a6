/**
 * Fifty users at once, with the same request ids and progress tokens: whatever a user gets, answers, progress, log messages, lists
 * and notifications, carries that user's mark and nobody else's.
 */
import { randomBytes } from "node:crypto";
import { Agent, type ClientRequest, createServer, type IncomingMessage, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { META, MODERN } from "../fixtures/messages.ts";
import { type Fixture, fixtureCommand, startFixture, waitFor } from "../fixtures/processes.ts";
import { type ForeignServer, foreignServer } from "../oauth/foreign-server.ts";
import { stop } from "../oauth/support.ts";
import { type ClientEra, ERAS, envelope, TRANSPORTS } from "./scripted.ts";
import { type World, world } from "./world.ts";

const USERS = 50;
const ROUNDS = 3;
const MARK = /mark\d\dx[0-9a-f]{8}/g;
const marks = Array.from({ length: USERS }, (_, index) => `mark${index + 10}x${randomBytes(4).toString("hex")}`);
/** Of every user the same. */
const ID = "same";

let http: Server;
let issuer: ForeignServer;
beforeAll(async () => {
  http = createServer(async (asked, response) => {
    const answer = await issuer.http.fetch(new URL(asked.url ?? "/", issuer.issuer));
    response.writeHead(answer.status, { "content-type": "application/json" }).end(await answer.text());
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  issuer = await foreignServer(Date.now, `http://127.0.0.1:${(http.address() as AddressInfo).port}`);
  const origin = issuer.issuer;
  issuer.answers.set(`${origin}/.well-known/oauth-authorization-server`, () =>
    Response.json({ issuer: origin, jwks_uri: `${origin}/keys`, token_endpoint: `${origin}/token` }),
  );
});
afterAll(() => stop(http));

/** Everything that one user was sent. */
class User {
  readonly mark: string;
  readonly era: ClientEra;
  readonly #one: World;
  readonly #agent: Agent;
  readonly #headers: Record<string, string>;
  readonly #open: ClientRequest[] = [];
  /** Each answer, and what has come so far of each stream. */
  readonly got: string[] = [];

  constructor(mark: string, era: ClientEra, one: World, agent: Agent, token: string) {
    this.mark = mark;
    this.era = era;
    this.#one = one;
    this.#agent = agent;
    this.#headers = {
      authorization: `Bearer ${token}`,
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      "mcp-protocol-version": era === "modern" ? MODERN : "2025-11-25",
    };
  }

  /** One request; resolves with the whole answer. Everyone uses one id and one progress token. */
  async ask(method: string, params: object = {}, meta: string[] = []): Promise<string> {
    const { promise, resolve } = Promise.withResolvers<string>();
    const at = this.got.push("") - 1;
    this.#send("POST", this.#body(method, params, meta), this.#named(method, params), this.#agent, (response) => {
      const session = response.headers["mcp-session-id"];
      if (typeof session === "string") this.#headers["mcp-session-id"] = session;
      response.on("data", (chunk: string) => {
        this.got[at] += chunk;
      });
      response.on("end", () => resolve(this.got[at] ?? ""));
    });
    return promise;
  }

  /** Starts to hear of the user's own resource and of lists; resolves once the gateway listens. */
  async listen(): Promise<void> {
    const uri = `canary://${this.mark}`;
    if (this.era === "legacy") {
      await this.ask("initialize", {
        protocolVersion: "2025-11-25",
        capabilities: {},
        clientInfo: { name: this.mark, version: "1" },
      });
      await this.ask("logging/setLevel", { level: "debug" });
      await this.#stream("GET", "");
      await this.ask("resources/subscribe", { uri });
    } else {
      const notifications = { resourceSubscriptions: [uri], toolsListChanged: true };
      await this.#stream("POST", this.#body("subscriptions/listen", { notifications }, []), {
        "mcp-method": "subscriptions/listen",
      });
    }
  }

  hangUp(): void {
    for (const one of this.#open) one.destroy();
  }

  #stream(method: string, body: string, headers: Record<string, string> = {}): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const at = this.got.push("") - 1;
    const sent = this.#send(method, body, headers, undefined, (response) => {
      response.on("data", (chunk: string) => {
        this.got[at] += chunk;
      });
      resolve();
    });
    this.#open.push(sent);
    return promise;
  }

  #send(
    method: string,
    body: string,
    headers: Record<string, string>,
    agent: Agent | undefined,
    answered: (response: IncomingMessage) => void,
  ): ClientRequest {
    const all = { ...this.#headers, ...headers };
    const sent = request(this.#one.url, { method, headers: all, agent: agent ?? false }, (response) => {
      response.setEncoding("utf8");
      answered(response);
    });
    sent.on("error", () => {}); // Hung up at the end.
    sent.end(body);
    return sent;
  }

  #body(method: string, params: object, meta: string[]): string {
    const own = [...(this.era === "modern" ? [envelope()] : []), '"progressToken":"same"', ...meta];
    const text = JSON.stringify(params).slice(1, -1);
    return `{"jsonrpc":"2.0","id":"${ID}","method":"${method}","params":{${text}${text === "" ? "" : ","}"_meta":{${own.join(",")}}}}`;
  }

  #named(method: string, params: object): Record<string, string> {
    if (this.era === "legacy") return {};
    const { name, uri } = params as { name?: string; uri?: string };
    const named = name ?? uri;
    return { "mcp-method": method, ...(named !== undefined && { "mcp-name": named }) };
  }
}

/** What a user does in one round; each gives what must be in the answer. */
function round(user: User, index: number): Promise<[answer: string, wanted: string]>[] {
  const { mark } = user;
  const level = user.era === "modern" ? [`"${META}/logLevel":"debug"`] : [];
  const expecting = async (wanted: string, answer: Promise<string>) => [await answer, wanted] as [string, string];
  const speak = { name: "speak", arguments: { mark, ms: index % 4, steps: 1 + (index % 3) } };
  return [
    expecting(`"structuredContent":{"mark":"${mark}"}`, user.ask("tools/call", speak, level)),
    expecting(`tool of ${mark}`, user.ask("tools/call", { name: `tool-${mark}`, arguments: {} })),
    expecting(`Failed for ${mark}.`, user.ask("tools/call", { name: "fail", arguments: { mark } })),
    expecting(`"name":"tool-${mark}"`, user.ask("tools/list")),
    expecting(`"uri":"canary://${mark}"`, user.ask("resources/list")),
    expecting(`"name":"prompt-${mark}"`, user.ask("prompts/list")),
    expecting(`read canary://${mark}`, user.ask("resources/read", { uri: `canary://${mark}` })),
    expecting(`prompt prompt-${mark}`, user.ask("prompts/get", { name: `prompt-${mark}` })),
    expecting("touched", user.ask("tools/call", { name: "touch", arguments: { uri: `canary://${mark}` } })),
    expecting(
      `prompt-${mark}`,
      user.ask("completion/complete", {
        ref: { type: "ref/prompt", name: `prompt-${mark}` },
        argument: { name: "a", value: "" },
      }),
    ),
  ];
}

describe.each(TRANSPORTS)("one server over %s for everybody", (transport) => {
  describe.each(ERAS)("that speaks %s", (serverEra) => {
    let one: World;
    let fixture: Fixture | undefined;
    beforeAll(async () => {
      const args = [marks.join(","), "--era", serverEra];
      if (transport === "http") fixture = await startFixture("canaries", [...args, "--http"]);
      const server =
        fixture === undefined
          ? { command: fixtureCommand("canaries", args), processes: { max: 1 } }
          : { url: `${fixture.origin}/mcp` };
      const own = (mark: string) => [`tool:tool-${mark}`, `resource:canary://${mark}`, `prompt:prompt-${mark}`];
      one = await world({
        servers: { it: server },
        clients: undefined,
        authorization: { issuer: issuer.issuer },
        roles: Object.fromEntries(marks.map((mark) => [mark, { may: ["speak", "fail", "touch", ...own(mark)] }])),
        assign: marks.map((mark) => ({ role: mark, group: mark })),
      });
    });
    afterAll(async () => {
      await one?.[Symbol.asyncDispose]();
      await fixture?.stop();
    });

    test.each(ERAS)("50 users with %s clients get their own and nothing of anybody else's", async (era) => {
      const agent = new Agent({ keepAlive: true, maxSockets: 100 });
      const users = await Promise.all(
        marks.map(async (mark, index) => {
          const claims = { sub: mark, aud: one.url, scope: "mcp:read mcp:call", groups: [mark] };
          // Half of them through one client: what tells users apart is not their client alone.
          const token = await issuer.sign(
            { ...claims, client_id: index % 2 === 0 ? "agent" : mark },
            { typ: "at+jwt" },
          );
          return new User(mark, era, one, agent, token);
        }),
      );
      try {
        await Promise.all(users.map((user) => user.listen()));
        for (let index = 0; index < ROUNDS; index++) {
          const answers = await Promise.all(users.flatMap((user) => round(user, index)));
          for (const [answer, wanted] of answers) expect(answer).toContain(wanted);
        }
        await waitFor(() => users.every(({ got, mark }) => updatesIn(got) >= 1 && got.join("").includes(mark)));
        for (const { got, mark } of users) {
          const text = got.join("\n");
          expect([...new Set(text.match(MARK))]).toEqual([mark]);
          // A call's progress is all there, each step once, under the token that everybody has.
          const steps = ROUNDS + Array.from({ length: ROUNDS }, (_, index) => index % 3).reduce((a, b) => a + b);
          expect(text.match(/"method":"notifications\/progress"/g)?.length).toBe(steps);
          // On a shared stdio process nobody can tell whose log message it is while several calls are under way.
          if (transport === "http") expect(text).toContain('"method":"notifications/message"');
          expect(text).not.toMatch(/"progressToken":(?!"same")/);
          expect(text).not.toMatch(/"id":(?!"same")/);
        }
      } finally {
        for (const user of users) user.hangUp();
        agent.destroy();
      }
    });
  });
});

function updatesIn(got: readonly string[]): number {
  return got.join("").match(/notifications\/resources\/updated/g)?.length ?? 0;
}
