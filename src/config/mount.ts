/** Settings of a gateway inside somebody's app: those of a file, or of a server that the app has made itself. */
import { resolve } from "node:path";
import type { z } from "zod";
import { DrawbridgeError } from "../core/errors.ts";
import type { ModuleServer } from "../mcp/module-server.ts";
import { presentModule } from "../upstream/module.ts";
import { simpleName } from "./defaults.ts";
import { type LoadedSettings, loadSettings, settleSettings } from "./load.ts";
import type { Environment } from "./references.ts";
import type { settingsSchema } from "./schema.ts";

/** A settings file as an object, but for what the app decides: where it is, who serves TLS, and which server. */
export type MountSettings = Omit<z.input<typeof settingsSchema>, "publicUrl" | "servers" | "tls">;

export interface Mount {
  readonly settings: LoadedSettings;
  readonly environment: Environment;
  /** Lets go of the server, which no settings can name any more. */
  forget(): void;
}

/** Checks settings for `server`, or for the file that it names. Throws `SettingsProblems`. */
export async function settingsForMount(
  server: ModuleServer | string,
  given: {
    readonly publicUrl: string;
    readonly settings?: MountSettings;
    readonly folder?: string;
    readonly environment?: Environment;
  },
): Promise<Mount> {
  const { publicUrl, settings, folder = process.cwd(), environment = process.env } = given;
  if (typeof server === "string") {
    if (settings !== undefined)
      throw new DrawbridgeError("settings_invalid", `Settings beside the file ${server}: write them into it.`);
    const overrides = { publicUrl: { path: ["publicUrl"], value: publicUrl } };
    const loaded = await loadSettings(resolve(folder, server), { env: environment, overrides });
    return { settings: loaded, environment, forget: () => {} };
  }
  const { module, forget } = presentModule(server);
  const name = simpleName(String(server.identity.info["name"])) || "server";
  try {
    const raw = { ...settings, publicUrl, servers: { [name]: { module } } };
    return { settings: await settleSettings(raw, folder, { env: environment }), environment, forget };
  } catch (error) {
    forget();
    throw error;
  }
}
