/** The log: one JSON line (or one readable line on a terminal) per event, on stderr, without secrets. */
import { type Logger as PinoLogger, pino } from "pino";
import { cleanFields, cleanText, type Level, type Log, type Logger, type LogStream, readable } from "./log-lines.ts";
import type { LogSettings } from "./settings.ts";

export { type Logger, type LogStream, silentLogger } from "./log-lines.ts";

/** Makes the process's logger. Writing is synchronous, so the line before a crash is not lost. */
export function createLogger(settings: LogSettings, stream: LogStream = process.stderr): Logger {
  const text = settings.format === "text" || (settings.format === "auto" && stream.isTTY === true);
  const write = text
    ? (line: string) => stream.write(readable(line, stream.isTTY === true))
    : (line: string) => stream.write(line);
  const root = pino(
    {
      level: settings.level,
      base: null,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      messageKey: "message",
      formatters: { level: (label) => ({ level: label }) },
    },
    {
      write(line: string) {
        try {
          write(line);
        } catch {
          // A closed stderr must not take the gateway down, and there is nowhere left to say so.
        }
      },
    },
  );
  return cleaning(root);
}

function cleaning(target: PinoLogger<never, boolean>): Logger {
  const at =
    (level: Level): Log =>
    (fields, message) => {
      if (target.isLevelEnabled(level)) target[level](cleanFields(fields), cleanText(message));
    };
  return {
    trace: at("trace"),
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    child: (fields) => cleaning(target.child(cleanFields(fields))),
  };
}
