/** The pages people see: plain HTML from the server, no script, one style sheet. All texts of strangers are escaped. */
import { hash } from "node:crypto";
import type { ServerResponse } from "node:http";
import { styleSheet } from "./style.ts";

/** HTML that may be put into a page as it is. Only `html` makes it. */
export class Html {
  readonly #text: string;
  constructor(text: string) {
    this.#text = text;
  }
  toString(): string {
    return this.#text;
  }
}

type Part = string | number | Html | readonly Part[] | false | undefined;

/** A template whose values are escaped unless they are `Html` themselves; `false` and undefined leave nothing. */
export function html(texts: TemplateStringsArray, ...parts: readonly Part[]): Html {
  return new Html(texts.reduce((all, text, i) => all + rendered(parts[i - 1]) + text));
}

function rendered(part: Part): string {
  if (part === undefined || part === false) return "";
  if (part instanceof Html) return part.toString();
  if (typeof part === "object") return part.map(rendered).join("");
  return String(part).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

export interface Page {
  readonly title: string;
  readonly body: Html;
  /** Wide enough for a list of things. */
  readonly wide?: boolean;
}

export const STYLE_PATH = "/oauth/assets/style.css";
const styleVersion = hash("sha256", styleSheet, "base64url").slice(0, 12);

export interface PageOptions {
  readonly status?: number;
  /** Path of the issuer. */
  readonly prefix: string;
  /**
   * True for pages whose form may lead on to a client: Chromium applies `form-action` to every redirect after a post, the
   * client's own ones included, so it cannot be named there.
   */
  readonly leadsToClient?: boolean;
  readonly headers?: Readonly<Record<string, string>>;
}

export function pageHeaders({ leadsToClient = false }: Pick<PageOptions, "leadsToClient">): Record<string, string> {
  const policy = [
    "default-src 'none'",
    "style-src 'self'",
    "img-src 'self' data:",
    "frame-ancestors 'none'",
    "base-uri 'none'",
  ];
  if (!leadsToClient) policy.push("form-action 'self'");
  return {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": policy.join("; "),
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    // No Cross-Origin-Opener-Policy: a web client that opened this page in a window waits for that window to come back.
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
  };
}

export function showPage(response: ServerResponse, page: Page, options: PageOptions): void {
  const { status = 200 } = options;
  // What went wrong is the first thing a screen reader says of a page that came back.
  const title = status === 422 || status === 429 ? `Error: ${page.title}` : page.title;
  const text = pageText({ ...page, title }, options.prefix);
  response.writeHead(status, {
    ...pageHeaders(options),
    ...options.headers,
    "content-length": Buffer.byteLength(text),
  });
  response.end(text);
}

export function showStyleSheet(response: ServerResponse): void {
  response.writeHead(200, {
    "content-type": "text/css; charset=utf-8",
    "cache-control": "public, max-age=31536000, immutable",
    "x-content-type-options": "nosniff",
  });
  response.end(styleSheet);
}

export function pageText({ title, body, wide = false }: Page, prefix: string): string {
  return `<!doctype html>
${html`<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>${title} · Drawbridge</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="${prefix}${STYLE_PATH}?${styleVersion}">
</head>
<body>
<div class="${wide ? "frame wide" : "frame"}">
<header class="brand">${mark} <span>Drawbridge</span></header>
<main>
${body}
</main>
</div>
</body>
</html>
`}`;
}

/** Two towers, the bridge between them half open. */
export const mark = html`<svg class="mark" viewBox="0 0 32 32" width="32" height="32" aria-hidden="true" focusable="false" fill="none" stroke="currentColor" stroke-width="2.25" stroke-linecap="round" stroke-linejoin="round"><path d="M8.5 25V8M23.5 25V8M8.5 20l6-6M23.5 20l-6-6M5 25h22"/></svg>`;

/** A name that strangers chose: its direction of writing does not turn round the words beside it. */
export function name(text: string): Html {
  return html`<bdi>${text}</bdi>`;
}

/** The same for a title, which has no elements: U+2068 and U+2069 isolate. */
export function nameInTitle(text: string): string {
  return `\u2068${text}\u2069`;
}

/** "1 tool", "3 tools". */
export function count(howMany: number, one: string, many: string): string {
  return `${howMany} ${howMany === 1 ? one : many}`;
}

/** Problems that a person can repair, announced by screen readers when the page appears. */
export function alert(problems: readonly string[]): Html | undefined {
  if (problems.length === 0) return undefined;
  return html`<div class="notice bad" role="alert">${problems.map((problem) => html`<p>${problem}</p>`)}</div>`;
}

export interface Field {
  readonly name: string;
  readonly label: string;
  readonly type?: "text" | "email" | "password";
  readonly autocomplete: string;
  readonly value?: string | undefined;
  readonly hint?: string;
  readonly required?: boolean;
  readonly focus?: boolean;
  readonly minLength?: number;
}

export function field({
  name,
  label,
  type = "text",
  autocomplete,
  value,
  hint,
  required = true,
  focus,
  minLength,
}: Field): Html {
  return html`<div class="field">
<label for="${name}">${label}${!required && html` <span class="quiet">(optional)</span>`}</label>
<input id="${name}" name="${name}" type="${type}" autocomplete="${autocomplete}" value="${value ?? ""}" maxlength="256"${
    minLength !== undefined && html` minlength="${minLength}"`
  }${required && html` required`}${focus && html` autofocus`}${hint !== undefined && html` aria-describedby="${name}-hint"`}${
    type !== "password" && html` autocapitalize="none" spellcheck="false"`
  }>
${hint !== undefined && html`<p class="hint" id="${name}-hint">${hint}</p>`}
</div>`;
}

export function formToken(token: string): Html {
  return html`<input type="hidden" name="form" value="${token}">`;
}

export function day(ms: number): Html {
  const date = new Date(ms);
  const text = date.toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric", timeZone: "UTC" });
  return html`<time datetime="${date.toISOString()}">${text}</time>`;
}

/** "30 days", "1 day", "6 hours". */
export function duration(days: number): string {
  const [count, unit] = days >= 1 ? [Math.floor(days), "day"] : [Math.max(1, Math.round(days * 24)), "hour"];
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}

/** What went wrong, and what to do now. `code` is for whoever helps. */
export function errorPage(title: string, message: string, advice?: string, code?: string): Page {
  return {
    title,
    body: html`<h1>${title}</h1>
<p>${message}</p>
${advice !== undefined && html`<p>${advice}</p>`}
${code !== undefined && html`<p class="quiet small">Code: <code>${code}</code></p>`}`,
  };
}
