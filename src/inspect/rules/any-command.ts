/** Tools that run any command: nothing else about the server bounds what it can do. */
import { saying } from "../fixture.ts";
import { parametersOf, runsCommand } from "../parameters.ts";
import type { Rule, Sighting, Subject } from "../rule.ts";

export const anyCommand: Rule = {
  id: "any-command",
  title: "can do whatever its process may",
  owasp: "MCP05",
  principle: 5,
  severity: "low",
  confidence: "medium",
  cost: 70,
  why: "A command line reads every file, reaches every host and starts what stays. No permission on another tool of the server means anything beside it.",
  fix: "Do not serve it; or serve the few commands that are needed as tools, and run the server in a sandbox without network.",
  bad: [
    saying("Runs a command.", { command: { type: "string" } }, { name: "start_process" }),
    saying("Runs commands.", { commands: { type: ["string", "null"] } }, { name: "batch" }),
  ],
  good: [
    saying("Starts a job.", { command: { enum: ["build", "test"] } }, { name: "start_job" }),
    saying("Searches the documentation of commands.", { query: { type: "string" } }, { name: "search_commands" }),
  ],
  find: found,
};

function* found(subject: Subject): Generator<Sighting> {
  if (subject.kind !== "tool") return;
  for (const parameter of parametersOf(subject.value))
    if (runsCommand(parameter)) yield { field: { where: parameter.where, text: parameter.name }, note: "any command" };
}
