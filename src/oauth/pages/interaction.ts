/** An authorization request that waits for a person: found by the cookie of the browser that began it, ended once. */
import type Provider from "oidc-provider";
import { errors } from "oidc-provider";
import { DrawbridgeError } from "../../core/errors.ts";
import type { Records } from "../../store/ports.ts";
import { type Exchange, type Place, replay, seeOther } from "../http.ts";
import { factsOf } from "../tokens/remembered.ts";

type Interaction = Awaited<ReturnType<Provider["interactionDetails"]>>;
export type InteractionResult = Parameters<Provider["interactionFinished"]>[2];
export type Client = NonNullable<Awaited<ReturnType<Provider["Client"]["find"]>>>;

export interface Pending {
  readonly id: string;
  readonly prompt: string;
  /** Why the person is asked. */
  readonly reasons: readonly string[];
  /** Who was signed in when the request began. */
  readonly user: string | undefined;
  readonly client: Client;
  readonly clientName: string;
  /** Where the answer will be sent. */
  readonly redirectUri: string;
  readonly scopes: readonly string[];
  readonly loginHint: string | undefined;
  /** Seconds since the person proved who they are that the client puts up with (OIDC Core §3.1.2.1 `max_age`). */
  readonly maxAge: number | undefined;
  /** Answers the request and sends the browser on. Throws `invalid_request` when it was answered before. */
  finish(result: InteractionResult): Promise<void>;
  /** Forgets who was signed in and begins the same request again. */
  restart(): Promise<void>;
}

export interface Interactions {
  /** Throws `invalid_request` when the request is over, or was begun in another browser. */
  pending(exchange: Exchange, id: string, prompt: "login" | "consent"): Promise<Pending>;
}

export function interactions(provider: Provider, records: Records, place: Place): Interactions {
  async function find(exchange: Exchange): Promise<Interaction> {
    try {
      // What it reads of the request is the cookie alone.
      return await provider.interactionDetails(replay(exchange, place, exchange.path), exchange.response);
    } catch (thrown) {
      return overWhenGone(thrown);
    }
  }

  return {
    async pending(exchange, id, prompt) {
      const interaction = await find(exchange);
      if (interaction.uid !== id || interaction.prompt.name !== prompt || interaction.result !== undefined)
        throw over();
      const { params, session } = interaction;
      const text = (name: string) => (typeof params[name] === "string" ? params[name] : undefined);
      const client = await provider.Client.find(text("client_id") ?? "");
      const redirectUri = text("redirect_uri");
      if (client === undefined || redirectUri === undefined) throw over();

      return {
        id,
        prompt,
        reasons: interaction.prompt.reasons,
        user: session?.accountId,
        client,
        clientName: factsOf(client).clientName,
        redirectUri,
        scopes: (text("scope") ?? "").split(" ").filter(Boolean),
        loginHint: text("login_hint")?.slice(0, 256),
        maxAge: params["max_age"] === undefined ? undefined : Number(params["max_age"]),
        async finish(result) {
          const request = replay(exchange, place, exchange.path);
          // With what was answered before in this request: `prompt=login` is done once, not again after the consent.
          const next = await provider
            .interactionResult(request, exchange.response, result, { mergeWithLastSubmission: true })
            .catch(overWhenGone);
          seeOther(exchange.response, next);
        },
        async restart() {
          const old = session?.uid === undefined ? undefined : await provider.Session.findByUid(session.uid);
          await old?.destroy();
          await records.delete("oauth:Interaction", id);
          const query = new URLSearchParams();
          for (const [name, value] of Object.entries(params)) {
            // Asked for once is enough: beginning again with `prompt` would ask for ever.
            for (const each of Array.isArray(value) ? value : [value]) {
              if (each !== undefined && name !== "prompt") query.append(name, String(each));
            }
          }
          seeOther(exchange.response, `${place.issuer}/oauth/authorize?${query}`);
        },
      };
    },
  };
}

/** Another tab of this browser has answered meanwhile, or taken the cookie for a request of its own. */
function overWhenGone(thrown: unknown): never {
  if (thrown instanceof errors.SessionNotFound) throw over();
  throw thrown;
}

function over(): DrawbridgeError {
  return new DrawbridgeError(
    "invalid_request",
    "This request has ended, was answered already, or was begun in another browser. Start again from the program that sent you here.",
  );
}
