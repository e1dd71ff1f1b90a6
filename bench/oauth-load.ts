/**
 * One measured run against an authorization server, in a process of its own on the generator's core: connections that get tokens
 * as fast as they are given, each with its own browser where there is one.
 */
import { createHash, randomBytes } from "node:crypto";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { Client } from "undici";
import { generated, type LoadResult, Meter } from "./load.ts";
import { filledForm } from "./sign-in.ts";

export const FLOWS = ["client_credentials", "refresh", "exchange", "authorize", "consent"] as const;
export type Flow = (typeof FLOWS)[number];

export interface AuthorizationEndpoint {
  readonly origin: string;
  /** Paths. */
  readonly authorize: string;
  readonly token: string;
  readonly resource: string;
  /** What a token of the resource is exchanged for; undefined: it cannot be. */
  readonly exchangeFor: string | undefined;
}

export interface OAuthPlan {
  readonly server: AuthorizationEndpoint;
  readonly flow: Flow;
  readonly secret: string;
  readonly connections: number;
  readonly warmSeconds: number;
  readonly seconds: number;
  /** Of each connection's browser, which signed in during an earlier run; signing in is slow, and limited, on purpose. */
  readonly cookies: readonly Cookies[];
  /** Process trees whose CPU and memory are read, by name. */
  readonly watched: Readonly<Record<string, number>>;
}

export type Cookies = Readonly<Record<string, string>>;

export interface OAuthResult extends LoadResult {
  /** For the next run. */
  readonly cookies: readonly Cookies[];
}

export const CLIENT_ID = "bench";
export const CALLBACK = "https://client.example/callback";

/** Runs one plan in a fresh generator process. */
export function oauthLoad(plan: OAuthPlan): Promise<OAuthResult> {
  return generated(fileURLToPath(import.meta.url), plan, plan.warmSeconds + plan.seconds + 60);
}

const VERIFIER = randomBytes(48).toString("base64url");
const SCOPE = "mcp:read mcp:call";
const MOST_PAGES = 12;

async function run(plan: OAuthPlan): Promise<OAuthResult> {
  const visitors = Array.from({ length: plan.connections }, (_, index) => new Visitor(plan, plan.cookies[index]));
  const meter = new Meter(plan.watched);
  try {
    // One after the other: a person does not sign in sixteen times at once.
    const steps: (() => Promise<void>)[] = [];
    for (const visitor of visitors) steps.push(await visitor.ready());
    let stopped = false;
    const workers = steps.map(async (step) => {
      while (!stopped) {
        const began = performance.now();
        const failure = await step().then(
          () => undefined,
          (error: unknown) => (error instanceof Error ? error.message : String(error)),
        );
        meter.count(failure, performance.now() - began);
        if (failure !== undefined) await pause(0.01);
      }
    });
    await pause(plan.warmSeconds);
    meter.begin();
    await pause(plan.seconds);
    meter.end();
    stopped = true;
    await Promise.all(workers);
    return { ...meter.result(), cookies: visitors.map((visitor) => visitor.cookies) };
  } finally {
    meter.stop();
    await Promise.all(visitors.map((visitor) => visitor.close()));
  }
}

interface Answer {
  readonly status: number;
  readonly location: string | undefined;
  readonly body: string;
}

interface Given {
  readonly access_token: string;
  readonly refresh_token: string;
}

/** A client on one connection, and the browser of its person. */
class Visitor {
  readonly #plan: OAuthPlan;
  readonly #http: Client;
  readonly #cookies: Map<string, string>;
  readonly #basic: string;

  constructor(plan: OAuthPlan, cookies: Cookies = {}) {
    this.#plan = plan;
    this.#cookies = new Map(Object.entries(cookies));
    this.#http = new Client(plan.server.origin, { headersTimeout: 30_000, bodyTimeout: 30_000 });
    this.#basic = `Basic ${btoa(`${CLIENT_ID}:${plan.secret}`)}`;
  }

  /** Does what comes once, and returns what is measured. */
  async ready(): Promise<() => Promise<void>> {
    const { flow, server } = this.#plan;
    const { resource } = server;
    if (flow === "client_credentials") {
      return async () => void (await this.#token({ grant_type: "client_credentials", scope: SCOPE, resource }));
    }
    // The first time the person signs in and consents, whatever is measured.
    let tokens = await this.#authorize("consent", MOST_PAGES);
    switch (flow) {
      case "refresh":
        return async () => {
          tokens = await this.#token({ grant_type: "refresh_token", refresh_token: tokens.refresh_token });
        };
      case "exchange":
        return async () => {
          await this.#token({
            grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
            subject_token: tokens.access_token,
            subject_token_type: "urn:ietf:params:oauth:token-type:access_token",
            resource: server.exchangeFor ?? "",
          });
        };
      case "authorize":
        return async () => void (await this.#authorize(undefined, 1));
      case "consent":
        return async () => void (await this.#authorize("consent", MOST_PAGES));
      default:
        return flow satisfies never;
    }
  }

  get cookies(): Cookies {
    return Object.fromEntries(this.#cookies);
  }

  close(): Promise<void> {
    return this.#http.destroy();
  }

  /** From the authorization request to tokens. Throws when more than `mostPages` answers are needed to come back. */
  async #authorize(prompt: string | undefined, mostPages: number): Promise<Given> {
    const { server } = this.#plan;
    const query = new URLSearchParams({
      response_type: "code",
      client_id: CLIENT_ID,
      redirect_uri: CALLBACK,
      scope: SCOPE,
      resource: server.resource,
      code_challenge: createHash("sha256").update(VERIFIER).digest("base64url"),
      code_challenge_method: "S256",
      state: "bench",
      ...(prompt !== undefined && { prompt }),
    });
    const landed = await this.#walk(`${server.authorize}?${query}`, mostPages);
    const code = landed.searchParams.get("code");
    if (code === null) throw new Error(`no code: ${landed.searchParams.get("error")}`);
    const grant = { grant_type: "authorization_code", code, redirect_uri: CALLBACK, code_verifier: VERIFIER };
    return this.#token(grant);
  }

  async #walk(start: string, mostPages: number): Promise<URL> {
    let path = start;
    let form: URLSearchParams | undefined;
    for (let pages = 0; pages < mostPages; pages += 1) {
      const { status, location, body } = await this.#browse(path, form);
      const here = new URL(path, this.#plan.server.origin);
      form = undefined;
      if (location !== undefined) {
        const next = new URL(location, here);
        if (next.href.startsWith(CALLBACK)) return next;
        path = `${next.pathname}${next.search}`;
        continue;
      }
      const filled = status === 200 ? filledForm(body) : undefined;
      if (filled === undefined) throw new Error(`${here.pathname.replaceAll(/[\w-]{20,}/g, "…")} answered ${status}`);
      const action = new URL(filled.action ?? here, here);
      path = `${action.pathname}${action.search}`;
      form = filled.fields;
    }
    throw new Error("the person was asked more than was foreseen");
  }

  async #browse(path: string, form: URLSearchParams | undefined): Promise<Answer> {
    const cookie = [...this.#cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const answer = await this.#send(form === undefined ? "GET" : "POST", path, form, {
      accept: "text/html",
      // Typed into the address bar, or sent by a form of the page.
      "sec-fetch-site": form === undefined ? "none" : "same-origin",
      "sec-fetch-mode": "navigate",
      ...(cookie === "" ? {} : { cookie }),
      ...(form === undefined ? {} : { origin: this.#plan.server.origin }),
    });
    for (const line of [answer.headers["set-cookie"] ?? []].flat()) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      if (value === "") this.#cookies.delete(name);
      else this.#cookies.set(name, value);
    }
    const { location } = answer.headers;
    return { status: answer.status, location: location?.toString(), body: answer.body };
  }

  async #token(grant: Readonly<Record<string, string>>): Promise<Given> {
    const form = new URLSearchParams(grant);
    const { status, body } = await this.#send("POST", this.#plan.server.token, form, { authorization: this.#basic });
    const answer = JSON.parse(body) as Partial<Given> & { readonly error?: string };
    const { access_token: token, refresh_token: renewed = "", error = "" } = answer;
    if (status !== 200 || token === undefined) throw new Error(`token endpoint: ${status} ${error}`);
    return { access_token: token, refresh_token: renewed };
  }

  async #send(
    method: "GET" | "POST",
    path: string,
    form: URLSearchParams | undefined,
    headers: Readonly<Record<string, string>>,
  ) {
    const type = form === undefined ? {} : { "content-type": "application/x-www-form-urlencoded" };
    const request = { method, path, headers: { ...headers, ...type }, ...(form && { body: form.toString() }) };
    const { statusCode: status, headers: answered, body } = await this.#http.request(request);
    return { status, headers: answered, body: await body.text() };
  }
}

function pause(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

if (import.meta.main) {
  const plan = JSON.parse(await text(process.stdin)) as OAuthPlan;
  process.stdout.write(JSON.stringify(await run(plan)));
}
