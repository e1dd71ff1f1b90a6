/** `drawbridge-mcp/author`: servers that cannot be written insecurely. */
export type { AnyObject, Documentation } from "./compile-errors.ts";
export { type Context, type Elicited, Refusal, refuse } from "./context.ts";
export { type Prompt, prompt, type Resource, resource } from "./resource.ts";
export { type Declared, type Server, server } from "./server.ts";
export { as, type Caller, type CallerOptions, ToolRefused } from "./testing.ts";
export { type Access, type Approval, type Limits, type Tool, type ToolOptions, tool } from "./tool.ts";
export type { Bounded, Described } from "./zod-words.ts";
