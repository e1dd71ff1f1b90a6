/** Walks the way of a client through a server, from its URL to a tool list, and writes down where it breaks and why. */
import type { Secret } from "../../core/secret.ts";
import { authorize, type Landing, openLanding } from "./authorize.ts";
import { type Challenge, readChallenge } from "./challenge.ts";
import { introduce } from "./client.ts";
import { findResource, readServer, tryFromBrowser } from "./discovery.ts";
import { type Examination, examination, STEPS, type Step, type StepName } from "./examination.ts";
import { type Http, openHttp, urlProblem } from "./http.ts";
import { initializeRequest, talk } from "./mcp.ts";
import { type Asking, redeem, renew, tidyUp } from "./token.ts";

export interface WalkOptions {
  /** The MCP endpoint. */
  readonly url: string;
  /** The last step to take. */
  readonly until: StepName;
  readonly register: boolean;
  readonly clientId: string | undefined;
  readonly clientSecret: Secret | undefined;
  /** Where the browser comes back to, on loopback; undefined: a free port. */
  readonly redirect: URL | undefined;
  readonly scope: string | undefined;
  /** A web page whose clients should be able to connect. */
  readonly origin: string;
  readonly trustedCertificates: string | undefined;
  /** Told of each step when it is over. */
  readonly done: (step: Step) => void;
  /** Shows the person where to sign in. */
  readonly show: (url: URL) => void | Promise<void>;
  /** Ends the waiting for the person. */
  readonly waiting: () => AbortSignal;
  readonly now: () => number;
}

/** Takes every step up to `until` that can be taken. Never rejects for what a server does. */
export async function walk(options: WalkOptions): Promise<readonly Step[]> {
  const book = examination(options.done);
  const opened: { http?: Http; landing?: Landing } = {};
  try {
    await along(options, book, opened);
  } finally {
    await opened.landing?.close();
    await opened.http?.close();
  }
  return book.steps();
}

async function along(
  options: WalkOptions,
  book: Examination,
  opened: { http?: Http; landing?: Landing },
): Promise<void> {
  const order = Object.keys(STEPS);
  const wanted = (step: StepName) => order.indexOf(step) <= order.indexOf(options.until);
  const url = URL.parse(options.url);

  const first = await book.step("reach", async (note) => {
    const problem = urlProblem(options.url, true);
    if (url === null || problem !== undefined || url.hash !== "") {
      note.fail(
        "url",
        `The URL ${problem ?? "has a fragment"}`,
        "Clients take an https URL, or http on this machine, without a user name or a fragment.",
      );
      return undefined;
    }
    const http = await openHttp(url, {
      ...(options.trustedCertificates !== undefined && { trustedCertificates: options.trustedCertificates }),
    });
    opened.http = http;
    const answer = await http.send(url, initializeRequest());
    note.ok("answers", `${url.host} answers (${http.addresses.slice(0, 3).join(", ")})`);
    return { http, answer };
  });
  if (first === undefined || url === null || !wanted("challenge")) return;
  const { http } = first;

  const challenge = await book.step("challenge", (note) => readChallenge(http, url, first.answer, note));
  if (challenge === undefined || !wanted("resource")) return;
  if (challenge.open) {
    if (wanted("call")) await book.step("call", (note) => talk(http, url, undefined, note));
    return;
  }
  await withTokens({ ...options, http, url, challenge, wanted, book, opened });
}

interface Going extends Omit<WalkOptions, "url"> {
  readonly http: Http;
  readonly url: URL;
  readonly challenge: Challenge;
  readonly wanted: (step: StepName) => boolean;
  readonly book: Examination;
  readonly opened: { landing?: Landing };
}

async function withTokens({ http, url, challenge, wanted, book, opened, ...options }: Going): Promise<void> {
  const resource = await book.step("resource", (note) => findResource(http, url, challenge, note));
  const server =
    resource !== undefined && wanted("server")
      ? await book.step("server", (note) => readServer(http, resource, challenge, note))
      : undefined;
  if (wanted("browser"))
    await book.step("browser", (note) => tryFromBrowser(http, url, resource, server, options.origin, note));
  if (resource === undefined || server === undefined || !wanted("registration")) return;

  const landing = wanted("authorize") ? await openLanding(options.redirect) : undefined;
  if (landing !== undefined) opened.landing = landing;
  const { clientId, clientSecret: secret, register } = options;
  const redirect = landing?.redirect ?? options.redirect?.href ?? "http://127.0.0.1/callback";
  const client = await book.step("registration", (note) =>
    introduce(http, server, { clientId, secret, register, redirect }, note),
  );
  if (client === undefined) return;
  const asking: Asking = { http, resource, server, client, now: options.now };
  if (landing === undefined) return tidyUp(asking, undefined);

  const named = challenge.scope ?? (resource.scopes.length > 0 ? resource.scopes.join(" ") : undefined);
  const scope = options.scope ?? named;
  const code = await book.step("authorize", (note) => {
    const signIn = { landing, scope, show: options.show, signal: options.waiting() };
    return authorize(http, resource, server, client, signIn, note);
  });
  const first =
    code !== undefined && wanted("token") ? await book.step("token", (note) => redeem(asking, code, note)) : undefined;
  const renewed =
    first !== undefined && wanted("refresh")
      ? await book.step("refresh", (note) => renew(asking, first, note))
      : undefined;
  const tokens = renewed ?? first;
  if (tokens !== undefined && wanted("call"))
    await book.step("call", (note) => talk(http, url, tokens.access.reveal(), note));
  await tidyUp(asking, tokens);
}
