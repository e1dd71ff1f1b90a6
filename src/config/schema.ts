/** The whole settings file: each folder's own slice, put together. `schema/config.schema.json` is generated from it. */
import { z } from "zod";
import { auditSettings } from "../audit/settings.ts";
import { controlSettings, interactionSettings, listenSettings, tlsSettings } from "../gateway/settings.ts";
import { authorizationSettings, clientsSettings, signInSettings, tokensSettings } from "../oauth/settings.ts";
import { logSettings, telemetrySettings } from "../observe/settings.ts";
import { assignSettings, limitsSettings, rolesSettings } from "../policy/settings.ts";
import { storeSettings } from "../store/settings.ts";
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
  authorization: authorizationSettings
    .optional()
    .describe("Another authorization server issues the tokens: `signIn`, `clients` and `tokens` are not used then."),
  signIn: signInSettings,
  clients: clientsSettings,
  tokens: tokensSettings,
  servers: serversSettings,
  secrets: secretsSettings,
  roles: rolesSettings.optional().describe("Default: a role `owner` that may do everything, for the group `owner`."),
  assign: assignSettings.optional(),
  limits: limitsSettings,
  interaction: interactionSettings,
  audit: auditSettings,
  control: controlSettings,
  telemetry: telemetrySettings,
  log: logSettings,
});

export type Settings = z.infer<typeof settingsSchema>;
