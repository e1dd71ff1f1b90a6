/** The whole settings file: each folder's own slice, put together. `schema/config.schema.json` is generated from it. */
import { z } from "zod";
import { auditSettings } from "../audit/settings.ts";
import { lockSettings } from "../contract/lock-settings.ts";
import { promptsSettings, resourcesSettings, toolsSettings } from "../contract/settings.ts";
import { controlSettings, interactionSettings, listenSettings, tlsSettings } from "../gateway/settings.ts";
import { answerSettings } from "../inspect/answer-settings.ts";
import { gatewayMaskSettings } from "../mask/settings.ts";
import { authorizationSettings, clientsSettings, signInSettings, tokensSettings } from "../oauth/settings.ts";
import { logSettings, telemetrySettings } from "../observe/settings.ts";
import { approvalsSettings } from "../policy/approval-settings.ts";
import { limitsSettings, stepUpSettings } from "../policy/limit-settings.ts";
import { assignSettings, rolesSettings, shadowPolicySettings } from "../policy/settings.ts";
import { cacheSettings, storeSettings } from "../store/settings.ts";
import { serversSettings } from "../upstream/settings.ts";
import { secretsSettings } from "./secrets.ts";

export const settingsSchema = z.strictObject({
  publicUrl: z
    .url({ protocol: /^https?$/ })
    .optional()
    .describe(
      "Where clients reach the gateway: the OAuth issuer, and with /mcp the protected resource. Default: http://127.0.0.1:<port>.",
    ),
  listen: listenSettings,
  tls: tlsSettings.optional(),
  store: storeSettings,
  cache: cacheSettings,
  authorization: authorizationSettings
    .optional()
    .describe("Another authorization server issues the tokens: `signIn`, `clients` and `tokens` are not used then."),
  signIn: signInSettings,
  clients: clientsSettings,
  tokens: tokensSettings,
  servers: serversSettings,
  secrets: secretsSettings,
  lock: lockSettings,
  // Before what it is about, so that a reload puts it in place first.
  approvals: approvalsSettings.describe(
    "Calls that a person has to approve before anything is sent, beside those whose contract says so (`approval`).",
  ),
  tools: toolsSettings
    .optional()
    .describe(
      "Contracts: what each tool is to its clients, by the name that they call it. When there are any, no other tool of any server is served.",
    ),
  resources: resourcesSettings
    .optional()
    .describe("The same for resources and resource templates, by the URI that clients use."),
  prompts: promptsSettings.optional().describe("The same for prompts."),
  roles: rolesSettings.optional().describe("Default: a role `owner` that may do everything, for the group `owner`."),
  assign: assignSettings.optional(),
  shadowPolicy: shadowPolicySettings
    .or(z.string().transform(unread))
    .optional()
    .describe(
      "Another policy that is only tried out beside this one: `roles` and `assign`, or the name of a settings file that has them. It decides nothing; what it would have decided otherwise is recorded, logged and counted.",
    ),
  stepUp: stepUpSettings.optional(),
  limits: limitsSettings,
  interaction: interactionSettings,
  mask: gatewayMaskSettings,
  answers: answerSettings.describe(
    "What is done about instructions to the model, hidden characters and links in what servers answer, say on the way and ask.",
  ),
  audit: auditSettings,
  control: controlSettings,
  telemetry: telemetrySettings,
  log: logSettings,
});

/** Files are read before the settings are checked, so a name that is still here could not be read, which was reported. */
function unread(): z.infer<typeof shadowPolicySettings> {
  return { roles: {}, assign: [] };
}

export type Settings = z.infer<typeof settingsSchema>;
