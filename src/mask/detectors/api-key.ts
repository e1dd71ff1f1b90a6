/** Keys and tokens of services, by the shape their issuer gave them, and random values after the name of a key. */
import { isPlaceholder, looksRandom, mayNameCredential, namedValue } from "../credential-names.ts";
import { type Detector, endsAt, type Found, isAlnum, isDigit, isHex, type NamedValue, pairIndex } from "../detector.ts";

type Body = "hex" | "alnum" | "word" | "upper" | "base64";

/** A word that begins with `prefix`, then `least` to `most` characters of `body`. */
interface Shape {
  readonly prefix: string;
  readonly body: Body;
  readonly least: number;
  readonly most: number;
}

/** Prefix, body, and how long the body is. From the documentation of each issuer. */
const SHAPES: readonly Shape[] = shapes([
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
  ["glagent-", "word", 40, 64],
  ["glimt-", "word", 20, 64],
  ["glffct-", "word", 20, 64],
  ["glsoat-", "word", 20, 64],
  ["glft-", "word", 20, 64],
  ["xoxb-", "word", 20, 255], // Slack
  ["xoxp-", "word", 20, 255],
  ["xoxa-", "word", 20, 255],
  ["xoxr-", "word", 20, 255],
  ["xoxs-", "word", 20, 255],
  ["xoxe-", "word", 20, 255],
  ["xoxc-", "word", 20, 255],
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
  ["sk-lf-", "word", 36, 36], // Langfuse
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
  ["lin_oauth_", "hex", 32, 64],
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
  ["sntrys_", "base64", 30, 400], // Sentry
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
  ["fm1_", "base64", 40, 400], // Fly.io
  ["fm2_", "base64", 40, 800],
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
  ["ABSK", "base64", 80, 300], // Amazon Bedrock
  ["live_", "hex", 35, 35], // Lob
  ["sk_", "hex", 48, 48], // ElevenLabs
  ["FLWSECK-", "word", 32, 40], // Flutterwave
  ["AKCp", "alnum", 60, 80], // Artifactory
  ["cmVmdGtuOj", "alnum", 50, 70],
  ["AKID", "alnum", 32, 32], // Tencent Cloud
  ["AQVN", "word", 35, 40], // Yandex Cloud
  ["SCW", "upper", 17, 17], // Scaleway
  ["aio_", "alnum", 28, 28], // Adafruit
  ["oy2", "alnum", 43, 43], // NuGet
  ["sdk-", "word", 36, 36], // LaunchDarkly
  ["CLOJARS_", "alnum", 60, 60],
  ["rdme_", "alnum", 70, 70], // ReadMe
  ["tfp_", "word", 40, 70], // Typeform
  ["secret-live-", "word", 30, 60], // Stytch
  ["secret-test-", "word", 30, 60],
  ["fc-", "hex", 32, 32], // Firecrawl
  ["EAA", "alnum", 90, 400], // Meta
  ["nvapi-", "word", 60, 70], // NVIDIA
  ["napi_", "alnum", 60, 70], // Neon
  ["sgp_", "word", 40, 70], // Sourcegraph
  ["e2b_", "hex", 40, 40],
  ["jina_", "alnum", 58, 64],
  ["fw_", "alnum", 22, 26], // Fireworks
]);

/** By the first two characters, see `pairIndex`. */
const BY_PAIR: readonly (readonly Shape[] | undefined)[] = Array.from({ length: 1024 }, (_, pair) => {
  const shapes = SHAPES.filter(({ prefix }) => pairIndex(prefix, 0) === pair);
  return shapes.length > 0 ? shapes : undefined;
});
const FIRST = SHAPES.map(({ prefix }) => prefix.charAt(0)).join("");
/** How long the keys of `isWhole` are. */
const WHOLE = [36, 37, 40, 50, 80, 81, 82, 83, 84, 85, 86, 87, 88];

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
  ["dp.sa", 38],
  ["dp.scim", 38],
  ["dp.audit", 38],
  ["amzn.mws", 36],
  ["AQ", 40], // Gemini
  ["xoxe.xoxb-1", 60],
  ["xoxe.xoxp-1", 60],
];

export const apiKey: Detector = {
  type: "api_key",
  about: "secret",
  word: { find: shaped, first: FIRST, behind: " $.:/", lengths: WHOLE },
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
    ["| API_KEY | `9f8Kd03mZq71xVbT2sYw` |", "9f8Kd03mZq71xVbT2sYw"],
    ['<add key="apiKey" value="9f8Kd03mZq71xVbT2sYw" />', "9f8Kd03mZq71xVbT2sYw"],
    ["ALGOLIA_ADMIN_KEY=0f3a9c27be4d5168a07c3f92d4e1b650", "0f3a9c27be4d5168a07c3f92d4e1b650"],
    ["EXCHANGE_TOKEN=0f3a9c27be4d5168a07c3f92d4e1b650", "0f3a9c27be4d5168a07c3f92d4e1b650"],
    ["gh --token 9f8Kd03mZq71xVbT2sYw/+a= run", "9f8Kd03mZq71xVbT2sYw/+a="],
    ["ENV AUTH_TOKEN 0f3a9c27be4d5168a07c3f92d4e1b650", "0f3a9c27be4d5168a07c3f92d4e1b650"],
    ["key sdk-9d147fbe-ca87-32b4-4095-fe891f5b0b13.", "sdk-9d147fbe-ca87-32b4-4095-fe891f5b0b13"],
    [
      "mailgun 17d31ded3a2c432c51ff24bb74be8863-1132af93-4243733f",
      "17d31ded3a2c432c51ff24bb74be8863-1132af93-4243733f",
    ],
    ["1bb0f8fe17e2172b6ca1f12f0b244c9136b5NRAL", "1bb0f8fe17e2172b6ca1f12f0b244c9136b5NRAL"],
    ["token s.7FGy2TBW3xfwkfiQjzNg02O7", "s.7FGy2TBW3xfwkfiQjzNg02O7"],
    ["1/3120880712784224:34c14ced28c461db90f7852ec2876c5b", "1/3120880712784224:34c14ced28c461db90f7852ec2876c5b"],
    [
      "access_token$production$kyxvusqqungj3pri$6b28650a745f0fda453eb3748745e0ab",
      "access_token$production$kyxvusqqungj3pri$6b28650a745f0fda453eb3748745e0ab",
    ],
    [
      "fm2_lJPECAAAAAAAAR8/xBDtm3x+9Kd0b7V2aQ1zR5yWc8sHn4uPo6LgTjE3vXfYiBqMkAZlDwSxrGhUe2N0IpOtC7J=",
      "fm2_lJPECAAAAAAAAR8/xBDtm3x+9Kd0b7V2aQ1zR5yWc8sHn4uPo6LgTjE3vXfYiBqMkAZlDwSxrGhUe2N0IpOtC7J=",
    ],
    ["dp.st.dev.3D1IiqPOe0m7SUVUVUZ7tcttlA6kdowMOeXzK4LQTBp", "dp.st.dev.3D1IiqPOe0m7SUVUVUZ7tcttlA6kdowMOeXzK4LQTBp"],
    [
      "1//04P1Pa9hp7je5tbt9X7pvfqQrfnyRv8gJ1fZTPF2_z5XBAJSp3zDfIGOrx43OiVuDlE9kLmN2",
      "1//04P1Pa9hp7je5tbt9X7pvfqQrfnyRv8gJ1fZTPF2_z5XBAJSp3zDfIGOrx43OiVuDlE9kLmN2",
    ],
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
    "s.handleTheNextOneOfThem24",
    "run --token readTheTokenOfTheFile --secret-file /run/secrets/a1B2c3D4",
    "let privateKey = CompositePrivateKey_1;",
    "https://a.example/1//0123456789 and 1/3120880712784224:0",
  ],
};

function shaped(text: string, start: number, end: number, found: Found): void {
  let from = start;
  while (from < end && (text.charCodeAt(from) === 45 || text.charCodeAt(from) === 95)) from++;
  const candidates = BY_PAIR[pairIndex(text, from)];
  if (candidates !== undefined) {
    for (const { prefix, body, least, most } of candidates) {
      let length = end - from - prefix.length;
      if ((length < least && body !== "base64") || !text.startsWith(prefix, from)) continue;
      if (body === "base64") {
        end = base64End(text, end, most);
        length = end - from - prefix.length;
        if (length < least) continue;
      }
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
  if (end - start >= 36 && isWhole(text, start, end)) {
    found.add(start, end);
    return;
  }
  const before = text.charCodeAt(start - 1);
  if (before === 46) dotted(text, start, end, found);
  else if (before === 58) afterColon(text, start, end, found);
  else if (before === 47) webhook(text, start, end, found);
  else if (before === 32 || before === 34 || before === 39) {
    if (end - start >= 16) afterFlag(text, before === 32 ? start - 1 : start - 2, found);
  } else if (before === 36) {
    // Braintree: access_token$production$…$…
    const back =
      end - start === 32 ? /access_token\$\w{6,12}\$\w{16}\$$/.exec(text.slice(Math.max(0, start - 44), start)) : null;
    if (back !== null) found.add(start - back[0].length, end);
  }
}

/** Keys whose form is told by what stands at a place within them. */
function isWhole(text: string, start: number, end: number): boolean {
  const length = end - start;
  // Mailchimp: 32 hexadecimal digits and a data centre. Mailgun: 32, eight, eight.
  if (text.charCodeAt(start + 32) === 45) {
    if (length <= 37) return /^[0-9a-f]{32}-us\d{1,2}$/.test(text.slice(start, end));
    return length === 50 && /^[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8}$/.test(text.slice(start, end));
  }
  // New Relic. Azure: every key since 2024 says at the 53rd character what it is, those of DevOps at the 77th.
  if (length === 40) return text.startsWith("NRAL", end - 4) && /^[0-9a-f]{36}$/.test(text.slice(start, end - 4));
  return length >= 80 && length <= 88 && (text.startsWith("JQQJ99", start + 52) || text.startsWith("AZDO", start + 76));
}

const FLAG = /(?:^|[\s"'`([])(?:--?|(?:ENV|ARG|set|setx|secret set) )[\w.-]{3,40}$/;

/** `--token …`, `ENV TOKEN …`, `set TOKEN …`: at the blank between the name and its value. */
function afterFlag(text: string, blank: number, found: Found): void {
  if (text.charCodeAt(blank) !== 32 || !mayNameCredential(text, blank)) return;
  const value = FLAG.test(text.slice(Math.max(0, blank - 64), blank)) ? namedValue(text, blank) : undefined;
  if (value !== undefined) named(text, value, found);
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
  [/(?<![A-Za-z0-9])dp\.st\.[\w-]{2,35}\.$/, /^[A-Za-z0-9]{40,44}$/], // Doppler
  [/(?<![A-Za-z0-9])v1\.$/, /^0-[0-9a-f]{24}-[0-9a-f]{146}$/], // Cloudflare
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
  if (end - start >= 20 && end - start <= 180) {
    const word = text.slice(start, end);
    const back = text.slice(Math.max(0, start - 132), start);
    for (const [before, last] of COMPOUND) {
      const match = last.test(word) ? before.exec(back) : null;
      if (match === null) continue;
      found.add(start - match[0].length, end);
      return;
    }
  }
  // The first tokens of Vault: `s.` and 24 characters.
  if (end - start === 24 && text[start - 2] === "s" && !/[\w.]/.test(text[start - 3] ?? "")) {
    // A name of a program has its digits at the end.
    if (looksRandom(text.slice(start, end), 24, 7) && /\d/.test(text.slice(start, start + 18)))
      found.add(start - 2, end);
    return;
  }
  // SendGrid: SG, 22 characters, 43 characters.
  if (text.startsWith("SG.", start - 3) && text[end] === "." && end - start >= 16 && end - start <= 32) {
    let last = end + 1;
    while (last - end < 80 && isWordCode(text.charCodeAt(last))) last++;
    if (last - end > 32) found.add(start - 3, last);
  }
}

/** `123456789:AA…` of a Telegram bot, `AAAA…:APA91b…` of Firebase, `1/1234567890123456:…` of Asana. */
function afterColon(text: string, start: number, end: number, found: Found): void {
  if (text.startsWith("APA91b", start) && end - start > 100) {
    const project = /(?<![\w-])[\w-]{7,12}:$/.exec(text.slice(Math.max(0, start - 14), start));
    if (project !== null) found.add(start - project[0].length, end);
    return;
  }
  if (end - start < 32 || end - start > 37) return;
  let from = start - 1;
  while (start - from < 18 && isDigit(text.charCodeAt(from - 1))) from--;
  const digits = start - 1 - from;
  if (digits < 8) return;
  if (text.startsWith("AA", start) && digits <= 11) found.add(from, end);
  else if (digits >= 14 && end - start === 32 && text[from - 1] === "/" && isDigit(text.charCodeAt(from - 2))) {
    if (consists(text, start, end, "hex")) found.add(from - 2, end);
  }
}

const SLACK_HOOKS = "hooks.slack.com/services/";

/** The secret path of a webhook of Slack or Discord. */
function webhook(text: string, start: number, end: number, found: Found): void {
  // Refresh tokens of Google: `1//0…`.
  if (end - start >= 60 && text.startsWith("1//0", start - 3)) {
    if (looksRandom(text.slice(start, end), 16, 3)) found.add(start - 3, end);
    return;
  }
  const path = text.slice(Math.max(0, start - 80), start);
  const slack = path.lastIndexOf(SLACK_HOOKS) + SLACK_HOOKS.length;
  if (slack >= SLACK_HOOKS.length && /^[\w/]*$/.test(path.slice(slack))) found.add(start - path.length + slack, end);
  else if (end - start >= 40 && /discord(?:app)?\.com\/api\/webhooks\/\d{15,22}\/$/.test(path)) found.add(start, end);
}

/** A client secret of Microsoft Entra: three characters, a digit, `Q~`, 31 to 34 more. */
function entra(text: string, tilde: number, found: Found): void {
  const start = tilde - 5;
  if (text[tilde - 1] !== "Q" || !isDigit(text.charCodeAt(tilde - 2)) || start < 0) return;
  if (!/^[A-Za-z0-9][\w.~-]{2}$/.test(text.slice(start, start + 3))) return;
  let end = tilde + 1;
  while (end - tilde < 40 && (isWordCode(text.charCodeAt(end)) || text[end] === "." || text[end] === "~")) end++;
  if (text[end - 1] === ".") end--;
  if (end - tilde >= 30 && !isAlnum(text.charCodeAt(start - 1))) found.add(start, end);
}

function named(text: string, value: NamedValue, found: Found): void {
  if (value.kind !== "key") return;
  const word = text.slice(value.start, value.end);
  if (/[^\w\-+/=.~:!@#$%^*]/.test(word) || word.includes("://") || isPlaceholder(word)) return;
  // In code the name of another key: privateKey = CompositePrivateKey_1.
  if (!value.quoted && /^[A-Za-z_$]+\d{1,3}$/.test(word)) return;
  if (looksRandom(word, 16, 4) || (value.quoted && looksRandom(word, 8, 3))) found.add(value.start, value.end);
}

function consists(text: string, start: number, end: number, body: Body): boolean {
  if (body === "word" || body === "base64") return true;
  for (let at = start; at < end; at++) {
    const code = text.charCodeAt(at);
    const fits = body === "hex" ? isHex(code) : isAlnum(code) && (body === "alnum" || code < 97);
    if (!fits) return false;
  }
  return endsAt(text, end);
}

/** Base64 goes on behind a word with `+`, `/` and `=`. */
function base64End(text: string, from: number, most: number): number {
  let end = from;
  while (end - from < most && (isWordCode(text.charCodeAt(end)) || "+/=".includes(text[end] ?? " "))) end++;
  return end;
}

function isWordCode(code: number): boolean {
  return isAlnum(code) || code === 45 || code === 95;
}

function shapes(
  rows: readonly (readonly [prefix: string, body: Body, least: number, most: number])[],
): readonly Shape[] {
  return rows.map(([prefix, body, least, most]) => ({ prefix, body, least, most }));
}
