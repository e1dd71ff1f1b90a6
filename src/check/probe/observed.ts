/** What a live probe saw of a server, as plain values: the rules beside this file judge them and ask nobody. */

/** How a request came out that a careful server refuses. */
export interface Attempt {
  /** `unclear`: the server failed, or answered something that is neither. */
  readonly outcome: "refused" | "taken" | "unclear";
  /** What it answered, in a few words without secrets. */
  readonly said: string;
  /** It was taken by the look of it; a page that a program fills may look alike. */
  readonly unsure?: boolean;
}

/** A document that was looked for, at the first place that has one. */
export interface Found {
  readonly place: string;
  /** Undefined: there is none; `problem` says why. */
  readonly document?: Readonly<Record<string, unknown>> | undefined;
  readonly problem?: string | undefined;
}

/** Members that are undefined were not looked at: no rule speaks of them. */
export interface Observed {
  /** The MCP endpoint. */
  readonly url: string;
  /** It is on this machine or its network. */
  readonly local: boolean;
  /** A first request without a token: did it get an MCP answer? */
  readonly anonymous?: Attempt;
  /** `WWW-Authenticate` of a 401, or that there was none; undefined: the answer was no 401. */
  readonly challenge?: { readonly bearer: boolean; readonly resourceMetadata?: string | undefined };
  readonly resource?: Found;
  /** The issuer as the resource writes it, and the document of its authorization server. */
  readonly issuer?: string;
  readonly server?: Found;
  /** Tokens that nobody should take, by what is wrong with them. */
  readonly badTokens?: Readonly<Record<string, Attempt>>;
  /** A good token in the address in place of the header. */
  readonly tokenInAddress?: Attempt;
  /** A request as the browser of a visitor of `https://attacker.example` would send it. */
  readonly foreignOrigin?: Attempt;
  /** What a preflight from there is told. */
  readonly preflight?: { readonly allowOrigin: string | undefined; readonly credentials: boolean };
  /** A request with another server's name in `Host`. */
  readonly foreignHost?: Attempt;
  readonly certificate?: {
    readonly daysLeft: number;
    readonly protocol: string;
    readonly problem?: string | undefined;
  };
  /** `Strict-Transport-Security`; null: there is none. */
  readonly hsts?: string | null;
  /** Session ids that were given one after another. */
  readonly sessions?: readonly string[];
  /** A session id of the client's own making. */
  readonly ownSession?: Attempt;
  /** A session of somebody with a token, used without one. */
  readonly sessionWithoutToken?: Attempt;
  /** Answers to requests that are wrong, shortened: by what was wrong. */
  readonly errors?: Readonly<Record<string, { readonly status: number; readonly text: string }>>;
  /** Paths beside the endpoint that answer with content: path, and what it looks like. */
  readonly open?: Readonly<Record<string, string>>;
  readonly authorization?: ObservedAuthorization;
}

/** What the authorization server did when it was asked for things that it should refuse. */
export interface ObservedAuthorization {
  /** An authorization request of a client that nobody knows, with a redirect to a stranger's page. */
  readonly strangersRedirect?: Attempt;
  /** Tokens for a client that nobody knows, by grant. */
  readonly strangersToken?: Readonly<Record<string, Attempt>>;
  /** A right request of a client that was registered for the probe; the others count only when it was taken. */
  readonly right?: Attempt;
  readonly withoutPkce?: Attempt;
  readonly plainPkce?: Attempt;
  readonly otherRedirect?: Attempt;
  readonly otherAudience?: Attempt;
  /** The page that a person sees: what keeps it out of frames. Undefined: none was seen. */
  readonly page?: { readonly frameOptions: string | undefined; readonly policy: string | undefined };
  /** Redirects that should not be registered, by kind. */
  readonly redirects?: Readonly<Record<string, Attempt>>;
  /** A code was given to somebody who never signed in. */
  readonly codeWithoutSignIn?: boolean;
  /** `iss` of the answer that bore it; null: there was none. */
  readonly answerIssuer?: string | null;
  readonly wrongVerifier?: Attempt;
  readonly codeTwice?: Attempt;
}
