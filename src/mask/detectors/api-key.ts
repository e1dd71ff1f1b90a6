/** Keys and tokens of services, by the shape their issuer gave them, and random values after the name of a key. */
import { isPlaceholder, looksRandom } from "../credential-names.ts";
import { type Detector, endsAt, type Found, isAlnum, isDigit, isHex, type NamedValue } from "../detector.ts";

type Body = "hex" | "alnum" | "word" | "upper";

/** A word that begins with `prefix`, then `least` to `most` characters of `body`. */
interface Shape {
  readonly prefix: string;
  readonly body: Body;
  readonly least: number;
  readonly most: number;
}

/** Prefix, body, and how long the body is. From the documentation of each issuer. */
const SHAPES: ReadonlyMap<number, readonly Shape[]> = shapes([
  ["ghp_", "alnum", 30, 255], // GitHub
  ["gho_", "alnum", 30, 255],
  ["ghu_", "alnum", 30, 255],
  ["ghs_", "word", 30, 255],
  ["ghr_", "alnum", 30, 255],
  ["github_pat_", "word", 30, 255],
  ["glpat-", "word", 20, 300], // GitLab
  ["gldt-", "word", 20, 64],
  ["glrt-", "word", 20, 64],
  ["glptt-", "alnum", 40, 64],
  ["glcbt-", "word", 20, 64],
  ["gloas-", "alnum", 64, 64],
  ["glsoat-", "word", 20, 64],
  ["glft-", "word", 20, 64],
  ["xoxb-", "word", 20, 255], // Slack
  ["xoxp-", "word", 20, 255],
  ["xoxa-", "word", 20, 255],
  ["xoxr-", "word", 20, 255],
  ["xoxs-", "word", 20, 255],
  ["xoxe-", "word", 20, 255],
  ["xapp-", "word", 20, 255],
  ["sk_live_", "alnum", 16, 255], // Stripe
  ["sk_test_", "alnum", 16, 255],
  ["rk_live_", "alnum", 16, 255],
  ["rk_test_", "alnum", 16, 255],
  ["whsec_", "alnum", 20, 255],
  ["AIza", "word", 30, 40], // Google
  ["GOCSPX-", "word", 20, 40],
  ["sk-ant-", "word", 30, 255], // Anthropic
  ["sk-proj-", "word", 20, 255], // OpenAI
  ["sk-svcacct-", "word", 20, 255],
  ["sk-admin-", "word", 20, 255],
  ["sk-None-", "word", 20, 255],
  ["sk-or-v1-", "hex", 40, 128], // OpenRouter
  ["sk-lf-", "hex", 8, 64], // Langfuse
  ["sk-", "alnum", 20, 64],
  ["npm_", "alnum", 30, 64],
  ["pypi-", "word", 40, 400],
  ["rubygems_", "hex", 40, 64],
  ["SK", "hex", 32, 32], // Twilio
  ["dop_v1_", "hex", 40, 80], // DigitalOcean
  ["doo_v1_", "hex", 40, 80],
  ["dor_v1_", "hex", 40, 80],
  ["HRKU-", "word", 36, 80], // Heroku
  ["shpat_", "hex", 32, 40], // Shopify
  ["shpss_", "hex", 32, 40],
  ["shpca_", "hex", 32, 40],
  ["shppa_", "hex", 32, 40],
  ["figd_", "word", 30, 80], // Figma
  ["hf_", "alnum", 30, 64], // Hugging Face
  ["api_org_", "alnum", 30, 64],
  ["r8_", "alnum", 30, 64], // Replicate
  ["gsk_", "alnum", 30, 80], // Groq
  ["xai-", "alnum", 40, 128],
  ["pplx-", "alnum", 40, 80], // Perplexity
  ["tvly-", "word", 20, 80], // Tavily
  ["lin_api_", "alnum", 30, 64], // Linear
  ["ntn_", "alnum", 30, 64], // Notion
  ["secret_", "alnum", 40, 50],
  ["dckr_pat_", "word", 20, 64], // Docker
  ["dapi", "hex", 32, 36], // Databricks
  ["glsa_", "word", 30, 64], // Grafana
  ["glc_", "word", 30, 400],
  ["NRAK-", "alnum", 20, 40], // New Relic
  ["NRJS-", "hex", 19, 40],
  ["NRII-", "word", 20, 40],
  ["phx_", "alnum", 30, 64], // PostHog
  ["sbp_", "hex", 40, 64], // Supabase
  ["sb_secret_", "word", 20, 64],
  ["sntrys_", "word", 30, 400], // Sentry
  ["sntryu_", "hex", 60, 70],
  ["PMAK-", "word", 40, 70], // Postman
  ["xkeysib-", "word", 60, 100], // Brevo
  ["key-", "hex", 32, 32], // Mailgun
  ["ATATT3xFf", "word", 40, 255], // Atlassian
  ["ATCTT3xFf", "word", 40, 255],
  ["ATBB", "alnum", 28, 40], // Bitbucket
  ["pul-", "hex", 40, 40], // Pulumi
  ["nfp_", "alnum", 30, 60], // Netlify
  ["CFPAT-", "word", 30, 60], // Contentful
  ["pscale_tkn_", "word", 30, 70], // PlanetScale
  ["pscale_pw_", "word", 30, 70],
  ["fio-u-", "word", 40, 80], // Frame.io
  ["LTAI", "alnum", 12, 30], // Alibaba Cloud
  ["rzp_live_", "alnum", 14, 24], // Razorpay
  ["sq0csp-", "word", 30, 50], // Square
  ["sq0atp-", "word", 20, 40],
  ["EAAA", "word", 56, 80],
  ["EAACEdEose0cBA", "alnum", 20, 255], // Meta
  ["AGE-SECRET-KEY-1", "upper", 50, 64],
  ["duffel_live_", "word", 30, 60],
  ["shippo_live_", "hex", 40, 40],
  ["lsv2_pt_", "word", 30, 80], // LangSmith
  ["lsv2_sk_", "word", 30, 80],
  ["pcsk_", "word", 40, 90], // Pinecone
  ["re_", "word", 24, 50], // Resend
  ["fm1_", "word", 40, 400], // Fly.io
  ["fm2_", "word", 40, 800],
  ["CCIPAT_", "word", 30, 90], // CircleCI
  ["bkua_", "hex", 40, 40], // Buildkite
  ["tskey-", "word", 20, 80], // Tailscale
  ["ops_", "word", 100, 1000], // 1Password
  ["cfut_", "word", 30, 60], // Cloudflare
  ["EZAK", "alnum", 54, 60], // EasyPost
  ["dapi", "word", 34, 34], // Databricks, with the number of a generation
  ["tgp_v1_", "word", 30, 80], // Together AI
  ["vcp_", "alnum", 24, 80], // Vercel
  ["vca_", "alnum", 24, 80],
  ["vci_", "alnum", 24, 80],
  ["vcr_", "alnum", 24, 80],
  ["vck_", "alnum", 24, 80],
  ["fo1_", "word", 30, 80], // Fly.io
  ["dckr_oat_", "word", 20, 64], // Docker
  ["squ_", "hex", 40, 40], // SonarQube
  ["sqp_", "hex", 40, 40],
  ["sqa_", "hex", 40, 40],
  ["rnd_", "alnum", 24, 48], // Render
  ["PLAK", "hex", 32, 32], // Planet
  ["xsmtpsib-", "word", 60, 100], // Brevo
  ["ico-", "alnum", 32, 32], // Infracost
  ["pnu_", "alnum", 36, 36], // Prefect
  ["pnb_", "alnum", 36, 36],
  ["pat-na1-", "word", 36, 40], // HubSpot
  ["pat-na2-", "word", 36, 40],
  ["pat-eu1-", "word", 36, 40],
  ["cio", "alnum", 32, 32], // crates.io
]);

/** Keys with full stops: the word before the stop, and how long the last word is. */
const DOTTED: readonly (readonly [head: string, least: number])[] = [
  ["hvs", 20], // HashiCorp Vault
  ["hvb", 20],
  ["hvr", 20],
  ["ya29", 20], // Google OAuth
  ["sl", 60], // Dropbox
  ["dp.pt", 38], // Doppler
  ["dp.st", 38],
  ["dp.ct", 38],
  ["AQ", 40], // Gemini
  ["xoxe.xoxb-1", 60],
  ["xoxe.xoxp-1", 60],
];

export const apiKey: Detector = {
  type: "api_key",
  about: "secret",
  word: shaped,
  named,
  at: { "~": entra },
  hits: [
    [
      "My key is xoxb-184860397459-1208714012877-nlp8t07gVeOjO8kTzwmINBze, please rotate it.",
      "xoxb-184860397459-1208714012877-nlp8t07gVeOjO8kTzwmINBze",
    ],
    [
      'apiKey: "sk-proj-rqug5Q4MD55P3FAMcGr2T3BlbkFJZ5amxWCEZPZvrsQyfs4E"',
      "sk-proj-rqug5Q4MD55P3FAMcGr2T3BlbkFJZ5amxWCEZPZvrsQyfs4E",
    ],
    ["token: glpat-Bgm65vUj2lM_jhFtgocQ", "glpat-Bgm65vUj2lM_jhFtgocQ"],
    [
      "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",
      "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",
    ],
    [
      "x-api-key: hvs.2UUJ15kDVKpSE4PhMj8RNtic8jqL1ZqF5yajJa7lGGam9SdZ4n",
      "hvs.2UUJ15kDVKpSE4PhMj8RNtic8jqL1ZqF5yajJa7lGGam9SdZ4n",
    ],
    ["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", "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"],
    ['{"text":"use\\nghp_k5xd0Yfk1YF6wYOcvvXRaABIx7NFQpa70Sac"}', "ghp_k5xd0Yfk1YF6wYOcvvXRaABIx7NFQpa70Sac"],
    ["DD_API_KEY=0f3a9c27be4d5168a07c3f92d4e1b650", "0f3a9c27be4d5168a07c3f92d4e1b650"],
    ['{"client_secret":"aXq8Q~3kVd0a.TfWm2Zs_9LrYb7pHcN4uJe1oG"}', "aXq8Q~3kVd0a.TfWm2Zs_9LrYb7pHcN4uJe1oG"],
    ["bot 123456789:AAF3kd9sLw0cJx7QmZ2vTbYn5RpHe8UgKi4", "123456789:AAF3kd9sLw0cJx7QmZ2vTbYn5RpHe8UgKi4"],
    [
      "AccountKey=Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6QUJDREVGR0hJSktMTU5PUA==;",
      "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6QUJDREVGR0hJSktMTU5PUA==",
    ],
    [
      "https://hooks.slack.com/services/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",
      "T03KX9QWE/B05LM2NPR/x8Kd3mVq0ZsT7bYcW1nRfJ5h",
    ],
    ["<apiKey>9f8Kd03mZq71xVbT2sYw</apiKey>", "9f8Kd03mZq71xVbT2sYw"],
    ["HEROKU_API_KEY=1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed", "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"],
  ],
  misses: [
    "sk-folding-cube-container-large",
    "api_key: sk_test_... or sk-...",
    "Set OPENAI_API_KEY=<your-token-here> in your shell",
    '{"apiKey":"import.meta.env.OPENAI_API_KEY"}',
    '{"nextPageToken":"eyJvZmZzZXQiOiAxNjMsICJ2IjogMX0"}',
    "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "key-value-store-of-the-application",
    "npm_config_registry and npm_lifecycle_event",
    "const token = readTokenFromVault2(name);",
    "idempotency_key: 1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed",
    '{"token_type":"Bearer","tokens":4096}',
    "secret_key_base, hf_transfer_enabled_by_default_since",
    "dapidocumentation0123456789abcdef01",
    "SK1234567890 is a product",
  ],
};

function shaped(text: string, start: number, end: number, found: Found): void {
  let from = start;
  while (from < end && (text.charCodeAt(from) === 45 || text.charCodeAt(from) === 95)) from++;
  const candidates = SHAPES.get(text.charCodeAt(from));
  if (candidates !== undefined) {
    for (const { prefix, body, least, most } of candidates) {
      const length = end - from - prefix.length;
      if (length < least || !text.startsWith(prefix, from)) continue;
      if (length > most || !consists(text, from + prefix.length, end, body)) continue;
      const word = text.slice(from + prefix.length, end);
      // What begins with a short word of a program may go on with one.
      const needsDigit = (prefix.length < 5 && prefix !== "hf_") || prefix === "secret_";
      if (looksRandom(word, Math.min(least, 16), 3, needsDigit) && !isPlaceholder(word))
        found.add(
          prefix.startsWith("xox") && text.startsWith("xoxe.", from - 5) ? from - 5 : from,
          tailEnd(text, end, prefix),
        );
      return;
    }
  }
  // Mailchimp: 32 hexadecimal digits and a data centre.
  if (
    end - start >= 36 &&
    end - start <= 37 &&
    text.charCodeAt(start + 32) === 45 &&
    /^[0-9a-f]{32}-us\d{1,2}$/.test(text.slice(start, end))
  ) {
    found.add(start, end);
    return;
  }
  const before = text.charCodeAt(start - 1);
  if (before === 46) dotted(text, start, end, found);
  else if (before === 58) telegram(text, start, end, found);
  else if (before === 47) webhook(text, start, end, found);
}

/** Where a key ends that goes on behind its word: GitLab's with a version and a check sum, Atlassian's with a check sum. */
function tailEnd(text: string, end: number, prefix: string): number {
  const tail = TAILS[prefix];
  if (tail === undefined) return end;
  tail.lastIndex = end;
  return tail.test(text) ? tail.lastIndex : end;
}

const TAILS: Readonly<Record<string, RegExp>> = {
  "glpat-": /\.[0-9a-z]{2}\.[0-9a-z]{7,9}(?![A-Za-z0-9])/y,
  ATATT3xFf: /=[0-9A-F]{8}(?![A-Za-z0-9])/y,
  ATCTT3xFf: /=[0-9A-F]{8}(?![A-Za-z0-9])/y,
};

/** Keys of several words: what stands before the last, and how long that is. */
const COMPOUND: readonly (readonly [before: RegExp, last: RegExp])[] = [
  [/(?<![A-Za-z0-9])pat[A-Za-z0-9]{14}\.$/, /^[0-9a-f]{64}$/], // Airtable
  [/(?<![A-Za-z0-9])[A-Za-z0-9]{14}\.atlasv1\.$/, /^[\w-]{60,70}$/], // Terraform
  [/(?<![A-Za-z0-9])dt0[a-z]\d{2}\.[A-Z0-9]{24}\.$/, /^[A-Z0-9]{64}$/], // Dynatrace
  [/(?<![A-Za-z0-9])[MNO][A-Za-z0-9_-]{22,27}\.[\w-]{6}\.$/, /^[\w-]{27,40}$/], // Discord
  [/(?<![A-Za-z0-9])[sp]k\.eyJ1[A-Za-z0-9_-]{20,120}\.$/, /^[\w-]{20,24}$/], // Mapbox
];

/** A prefix with stops before the word that begins at `start`. */
function dotted(text: string, start: number, end: number, found: Found): void {
  for (const [head, least] of DOTTED) {
    const from = start - 1 - head.length;
    if (end - start >= least && text.startsWith(head, from) && !isAlnum(text.charCodeAt(from - 1))) {
      if (looksRandom(text.slice(start, end), 16, 3)) found.add(from, end);
      return;
    }
  }
  if (end - start >= 20 && end - start <= 70) {
    const word = text.slice(start, end);
    const back = text.slice(Math.max(0, start - 132), start);
    for (const [before, last] of COMPOUND) {
      const match = last.test(word) ? before.exec(back) : null;
      if (match === null) continue;
      found.add(start - match[0].length, end);
      return;
    }
  }
  // SendGrid: SG, 22 characters, 43 characters.
  if (text.startsWith("SG.", start - 3) && text[end] === "." && end - start >= 16 && end - start <= 32) {
    let last = end + 1;
    while (last - end < 80 && isWordCode(text.charCodeAt(last))) last++;
    if (last - end > 32) found.add(start - 3, last);
  }
}

/** `123456789:AA…`, the token of a Telegram bot. */
function telegram(text: string, start: number, end: number, found: Found): void {
  if (end - start < 33 || end - start > 37 || !text.startsWith("AA", start)) return;
  let from = start - 1;
  while (start - from < 12 && text.charCodeAt(from - 1) >= 48 && text.charCodeAt(from - 1) <= 57) from--;
  if (start - 1 - from >= 8) found.add(from, end);
}

/** The secret path of a webhook of Slack or Discord. */
function webhook(text: string, start: number, end: number, found: Found): void {
  const path = text.slice(Math.max(0, start - 80), start);
  const slack = path.lastIndexOf("hooks.slack.com/services/");
  if (slack >= 0) found.add(start - path.length + slack + 25, end);
  else if (end - start >= 40 && /discord(?:app)?\.com\/api\/webhooks\/\d{15,22}\/$/.test(path)) found.add(start, end);
}

/** A client secret of Microsoft Entra: three characters, a digit, `Q~`, 31 to 34 more. */
function entra(text: string, tilde: number, found: Found): void {
  if (text[tilde - 1] !== "Q" || !isDigit(text.charCodeAt(tilde - 2)) || !isAlnum(text.charCodeAt(tilde - 5))) return;
  const start = tilde - 5;
  let end = tilde + 1;
  while (end - tilde < 40 && (isWordCode(text.charCodeAt(end)) || text[end] === "." || text[end] === "~")) end++;
  if (text[end - 1] === ".") end--;
  if (end - tilde >= 30 && start >= 0 && !isAlnum(text.charCodeAt(start - 1))) found.add(start, end);
}

function named(text: string, value: NamedValue, found: Found): void {
  if (value.kind !== "key") return;
  const word = text.slice(value.start, value.end);
  if (/[^\w\-+/=.~:!@#$%^*]/.test(word) || word.includes("://") || isPlaceholder(word)) return;
  if (looksRandom(word, 16, 4) || (value.quoted && looksRandom(word, 8, 3))) found.add(value.start, value.end);
}

function consists(text: string, start: number, end: number, body: Body): boolean {
  if (body === "word") return true;
  for (let at = start; at < end; at++) {
    const code = text.charCodeAt(at);
    const fits = body === "hex" ? isHex(code) : isAlnum(code) && (body === "alnum" || code < 97);
    if (!fits) return false;
  }
  return endsAt(text, end);
}

function isWordCode(code: number): boolean {
  return isAlnum(code) || code === 45 || code === 95;
}

function shapes(
  rows: readonly (readonly [prefix: string, body: Body, least: number, most: number])[],
): ReadonlyMap<number, readonly Shape[]> {
  const byFirst = new Map<number, Shape[]>();
  for (const [prefix, body, least, most] of rows) {
    const first = prefix.charCodeAt(0);
    byFirst.set(first, [...(byFirst.get(first) ?? []), { prefix, body, least, most }]);
  }
  return byFirst;
}
