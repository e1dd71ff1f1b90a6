/** A gateway whose server is another gateway with an authorization server of its own, and the way of a person through both. */
import { usersIn } from "../../src/oauth/people/users.ts";
import type { Store } from "../../src/store/ports.ts";
import {
  type Browser,
  Browser as CookieBrowser,
  connect,
  PASSWORD,
  type Running,
  register,
  type Tokens,
} from "../oauth/support.ts";
import { modernRequest, type World } from "./world.ts";

/** What a person does to connect a server: from the page here to the consent there and back. Returns what the last page says. */
export async function connectAccount(
  here: Browser,
  there: Browser,
  server: string,
  { answer = "allow", page = `/connections/${server}` }: { answer?: "allow" | "deny"; page?: string } = {},
): Promise<string> {
  await here.go(page);
  const away = await here.submit({}, `/connections/${server}/connect`);
  if (away === undefined) return here.last.text;
  const back = await consent(there, away, answer);
  await here.go(back.href);
  return here.last.text;
}

/** Consents at the other server; where it sends the browser then. */
export async function consent(there: Browser, away: URL, answer: "allow" | "deny" = "allow"): Promise<URL> {
  let back = await there.go(away.href);
  if (back === undefined && /<h1>Sign in/.test(there.last.text))
    back = await there.submit({ name: "olive", password: PASSWORD });
  if (back === undefined) back = await there.submit({ answer });
  if (back === undefined) throw new Error(`nobody was sent back: ${there.last.status} ${there.last.text}`);
  return back;
}

interface CallAnswer {
  readonly error?: { readonly code: number; readonly message: string; readonly data?: unknown };
  readonly result?: Readonly<Record<string, unknown>> & {
    readonly isError?: boolean;
    readonly content?: readonly { readonly text: string }[];
    readonly structuredContent?: Readonly<Record<string, unknown>>;
  };
}

/** Calls a tool as a client of 2026-07-28 that can show pages, or cannot. */
export async function callTool(
  world: World,
  name: string,
  args: object = {},
  { token, pages = false, more = {} }: { token?: string; pages?: boolean; more?: object } = {},
): Promise<CallAnswer> {
  const capabilities = pages ? { elicitation: { url: {} } } : {};
  const [body, headers] = modernRequest("tools/call", {
    name,
    arguments: args,
    ...more,
    _meta: { "io.modelcontextprotocol/clientCapabilities": capabilities },
  });
  return (await (await world.post(body, headers, token)).json()) as CallAnswer;
}

export async function toolsOf(world: World): Promise<readonly string[]> {
  const [body, headers] = modernRequest("tools/list");
  const answer = (await (await world.post(body, headers)).json()) as { result: { tools: { name: string }[] } };
  return answer.result.tools.map(({ name }) => name);
}

/** Tokens of the gateway itself for a client of whoever is signed in with this browser. */
export async function tokensOf(world: World, browser: Browser): Promise<Tokens> {
  const place = { origin: world.origin, base: world.gateway.publicUrl, resource: world.url } as Running;
  const { body } = await register(place);
  return connect(place, browser, { client: String(body["client_id"]), scope: "mcp:read mcp:call" });
}

/** A further person of a gateway whose store is open here too, signed in. */
export async function newUser(
  world: World,
  store: Pick<Store, "records">,
  name: string,
): Promise<{ readonly browser: Browser; readonly id: string }> {
  const users = usersIn(store.records);
  const { id } = await users.create({ name, email: undefined, password: PASSWORD, groups: ["owner"] });
  const browser = new CookieBrowser(world.origin);
  await browser.go("/sign-in");
  await browser.submit({ name, password: PASSWORD });
  return { browser, id };
}
